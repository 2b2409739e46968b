from dataclasses import replace

import pytest
import torch

from vmm.evaluation.common.encoding import encode_clips, refuse_broken
from vmm.evaluation.retrieval.options import Options


def test_an_evaluation_goes_on_where_it_was_killed(toys, tmp_path):
    class Killed(toys.Encoder):
        def encode_videos(self, video):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().encode_videos(video)

    world, options = toys.world(), {"batch_size": 3, "k": 4}
    whole = toys.evaluate(tmp_path / "whole", toys.Encoder(), world, **options)
    with pytest.raises(KeyboardInterrupt):
        toys.evaluate(tmp_path / "store", Killed(), world, **options)
    encoder = toys.Encoder()
    resumed = toys.evaluate(tmp_path / "store", encoder, world, **options)
    assert encoder.seen == [3, 3]  # half of the twelve
    for evaluation in (whole, resumed):
        evaluation.numbers.pop("seconds")
    assert resumed.numbers == whole.numbers
    assert torch.equal(resumed.scores, whole.scores)
    other = toys.Encoder(sees_order=False)
    toys.evaluate(tmp_path / "store", other, world, **options)
    assert sum(other.seen) == 12  # another model starts anew


def test_features_without_tokens_do_for_the_dual_encoder_only(toys, tmp_path):
    encoder, world = toys.Encoder(), toys.world()
    dual, both = Options(k=None), Options()
    store = toys.store(tmp_path, encoder, world, dual)
    encode_clips(encoder, world, store, keep_tokens=False, batch_size=32, num_workers=0)
    assert not list(store.folder.glob("tokens*"))
    assert toys.store(tmp_path, encoder, world, both).folder != store.folder


@pytest.mark.parametrize("what", ["model", "data", "frame_order", "clip"])
def test_features_are_of_everything_that_they_depend_on(toys, tmp_path, what):
    encoder, world = toys.Encoder(), toys.world()
    before = toys.store(tmp_path, encoder, world).folder
    assert toys.store(tmp_path, toys.Encoder(), toys.world()).folder == before
    if what == "model":
        encoder = toys.Encoder(reads_text=False)
    elif what == "data":
        world.fingerprint = lambda: "other toys"
    elif what == "frame_order":
        world.frame_order = "reversed"
    else:
        encoder.clip = replace(encoder.clip, fit="crop")
    assert toys.store(tmp_path, encoder, world).folder != before


def test_vectors_that_are_no_numbers_are_named():
    vectors = torch.zeros(4, 2, 3)
    refuse_broken(vectors, "clips", list("abcd"))
    vectors[1, 1, 2], vectors[3, 0, 0] = torch.nan, -torch.inf
    with pytest.raises(ValueError, match=r"2 of 4 clips hold NaN or infinity \(first: 'b', 'd'\)"):
        refuse_broken(vectors, "clips", list("abcd"))
