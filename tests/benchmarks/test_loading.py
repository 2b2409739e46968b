"""The simulation runs vmm's own order of samples, and its clock is one that can be followed."""

import numpy as np
import pytest

from benchmarks import loading, opening
from benchmarks.loading_plan import (
    Cluster,
    Corpus,
    PaperShards,
    Plan,
    audit,
    indexed_plan,
    resampled_plan,
    steps_for,
)
from vmm.data.corpora import Mixture, open_corpora
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings

CLUSTER = Cluster(4, 3, 5)
VIDEOS = Corpus("video", 203, 20)
BOTH = {"a": VIDEOS, "b": Corpus("image", 87, 9), "c": Corpus("image", 41, 8)}


def test_shards_on_paper_are_in_the_order_of_real_ones(tmp_path):
    for number, samples in enumerate([20, 20, 7]):
        opening.write_shard(tmp_path / f"{number:06d}.tar", samples, number)
    real = open_corpora({"video": f"{tmp_path}/*.tar"}, seed=3)["video"]
    paper = Mixture({"": PaperShards("", Corpus("video", 47, 20))}, seed=3)
    assert [paper.locate(i) for i in range(100)] == [real.locate(i) for i in range(100)]


@pytest.mark.parametrize("corpora", [{"": VIDEOS}, BOTH])
def test_every_pass_has_every_sample_once(corpora):
    listed = list(corpora.values())
    plan = indexed_plan(corpora, CLUSTER, steps_for(3, listed, CLUSTER))
    found = audit(plan, listed)
    assert found["passes"] >= 3 * len({c.media for c in listed})
    assert (found["repeated"], found["lost"]) == (0, 0)


def test_a_rank_that_reads_what_another_reads_is_found(monkeypatch):
    own = TrainStream.share_of

    def always_the_first(self, step):
        rank, self._rank = self._rank, 0
        try:
            return own(self, step)
        finally:
            self._rank = rank

    monkeypatch.setattr(TrainStream, "share_of", always_the_first)
    plan = indexed_plan({"": VIDEOS}, CLUSTER, steps_for(1, [VIDEOS], CLUSTER))
    found = audit(plan, [VIDEOS])
    assert found["repeated"] == found["lost"] > 100


def test_workers_that_all_make_the_same_steps_are_found(monkeypatch):
    def all_of_them(self, worker, workers):
        return range(self.first_step, self.first_step + len(self))

    monkeypatch.setattr(TrainStream, "steps_of", all_of_them)
    plan = indexed_plan({"": VIDEOS}, CLUSTER, steps_for(1, [VIDEOS], CLUSTER))
    assert audit(plan, [VIDEOS])["lost"] > 100


def test_batches_are_those_that_the_stream_makes(monkeypatch):
    seen = []

    def only_places(self, media, turns):
        seen.extend(position for position, _ in turns)
        return iter(())

    monkeypatch.setattr(TrainStream, "_samples", only_places)
    monkeypatch.setattr("vmm.data.stream.make_batch", lambda samples, *_: list(samples))
    mixture = Mixture({"": PaperShards("", VIDEOS)})
    settings = ClipSettings(num_frames=1, image_size=1)
    stream = TrainStream(
        {"video": mixture}, {"video": 5}, settings, rank=2, world_size=4, steps_per_epoch=12
    )
    for step in range(12):
        stream.batch(step)
    plan = indexed_plan({"": VIDEOS}, CLUSTER, 12)
    places = [mixture.locate(position) for position in seen]
    numbers = [20 * place.shard + place.sample for place in places]
    assert plan.sample[:, 2].reshape(-1).tolist() == numbers


def test_streams_of_urls_repeat_samples_and_short_epochs_never_reach_the_ends():
    pytest.importorskip("webdataset.gopen", reason="webdataset is not installed")
    corpus = Corpus("video", 4000, 1000)
    plan = resampled_plan(corpus, CLUSTER, 24)  # 40 samples of each worker
    assert audit(resampled_plan(VIDEOS, CLUSTER, 24), [VIDEOS])["repeated"] > 50
    assert (plan.sample >= 0).all() and (plan.sample % 1000 < 150).all()
    assert plan.read.sum() > plan.sample.size  # the window is filled first
    assert plan.opened.sum() == 4 * 3


def plan_of(ranks=2, count=40, batch=4):
    shape = count, ranks
    return Plan(
        np.full(count, "video", dtype=object),
        np.zeros((*shape, batch), dtype=np.int64),
        np.ones(shape, dtype=np.int64),
        np.full(shape, batch, dtype=np.int64),
    )


def test_the_seconds_of_a_batch_are_those_of_its_requests_bytes_and_decoding():
    storage = loading.Storage("still", 0.01, 0.0, 1e6)
    layout = loading.Layout("same", 1000, 0.5)
    seconds = loading.work(plan_of(), loading.INDEXED, 100, storage, layout)
    (size,) = {
        round(float(s) - (4 + 2) * 0.01 - 100 * loading.INDEX_S - 2.0, 9) for s in seconds.flat
    }
    assert 0.001 < size < 0.016  # 4 x 1,000 bytes of one sample, whose size is drawn
    slow = loading.work(plan_of(), loading.INDEXED, 100, storage, layout, {1: 3.0})
    assert np.allclose(slow[:, 0], seconds[:, 0])
    assert np.allclose(slow[:, 1] - seconds[:, 1], 2 * (0.06 + size))


def test_a_loader_that_keeps_up_is_not_waited_for():
    seconds = np.full((40, 3), 0.8)
    played = loading.play(seconds, 0.21, workers=4, prefetch=2)
    assert played.first == pytest.approx(0.8) and played.waiting(8) == 0
    assert loading.play(seconds, 0.0, 4, 2).pace(8) == pytest.approx(0.2)


def test_a_loader_that_does_not_keep_up_is_waited_for():
    seconds = np.full((40, 3), 0.8)
    assert loading.play(seconds, 0.1, 4, 2).waiting(8) == pytest.approx(0.5)
    seconds[:, 1] = 1.6  # one rank is slow, and all wait for it
    played = loading.play(seconds, 0.1, 4, 2)
    assert played.pace(8) == pytest.approx(0.4) and played.waits[8:, 0].max() == 0


def test_without_prefetching_every_batch_is_waited_for():
    played = loading.play(np.full((40, 2), 0.3), 1.0, workers=8, prefetch=0)
    assert played.waits == pytest.approx(0.3)
    assert loading.play(np.full((40, 2), 0.3), 1.0, 8, 1).waiting(8) == 0


def test_depth_helps_against_batches_of_unequal_length():
    seconds = np.random.default_rng(0).lognormal(-1, 1.0, (400, 4))
    waiting = [loading.play(seconds, 0.2, 4, depth).waiting(16) for depth in (1, 2, 4)]
    assert waiting[0] > waiting[1] > waiting[2]
