import numpy as np
import pytest
import torch

from tests.evaluation.films import NAMES, mp4
from vmm.evaluation.common.frames import read_frames, settings_of
from vmm.evaluation.grounding.frame_vectors import edges_of, per_frame, seed_of, text_vectors
from vmm.evaluation.grounding.store import FrameStore

FILM = ["red", "green", "green", "blue", "white", "white", "red"]


@pytest.fixture
def frames(toys):
    return read_frames(mp4(FILM), settings_of(toys.Encoder.clip, None), 1.0)


def colours(vectors):
    return [NAMES[i] for i in vectors.argmax(1)]


@pytest.mark.parametrize("window", [None, 1, 2, 3, 7, 9])
def test_every_frame_has_its_own_vector_in_windows_of_any_length(toys, frames, window):
    encoder = toys.Encoder()
    vectors = per_frame(encoder, frames, window)
    assert colours(vectors) == FILM
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(7))


def test_a_model_of_one_vector_needs_windows(toys, frames):
    encoder = toys.Encoder(apart=False)
    with pytest.raises(ValueError, match=r"one vector for all 7 frames.*--window 1"):
        per_frame(encoder, frames, None)
    assert colours(per_frame(encoder, frames, 1)) == FILM
    pairs = per_frame(encoder, frames, 2)
    assert torch.equal(pairs[0], pairs[1]) and torch.equal(pairs[5], pairs[6])


def test_shuffled_frames_are_in_another_place(toys, frames):
    seen = colours(per_frame(toys.Encoder(), frames.shuffled(seed_of(mp4(FILM))), None))
    assert sorted(seen) == sorted(FILM) and seen != FILM


def test_a_frame_counts_until_the_next_or_in_the_middle_of_its_part(frames):
    assert edges_of(frames, 1.0).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert edges_of(frames._replace(duration=8.0), None).tolist() == np.linspace(0, 8, 8).tolist()
    assert edges_of(frames._replace(duration=6.5), 1.0)[-1] == 6.5


def test_texts_have_length_1(toys):
    assert text_vectors(toys.Encoder(), ["red", "green blue"]).norm(
        dim=1
    ).tolist() == pytest.approx([1, 1])


def test_a_store_goes_on_after_what_was_finished(tmp_path):
    one, two = torch.rand(3, 4), torch.rand(2, 4)
    store = FrameStore(tmp_path, {"a": 1}, 4)
    store.add(5, None, np.arange(4.0), one)
    store.add(1, "truncated", np.zeros(0), None)
    with next(tmp_path.glob("*.f32")).open("ab") as file:
        file.write(b"torn")  # a killed process
    again = FrameStore(tmp_path, {"a": 1}, 4)
    assert set(again.videos) == {5, 1} and again.videos[1].problem == "truncated"
    again.add(0, None, np.arange(3.0), two)
    found = again.vectors()
    assert set(found) == {5, 0} and torch.equal(found[5], one) and torch.equal(found[0], two)
    assert FrameStore(tmp_path, {"a": 2}, 4).vectors() == {}
    again.remove()
    assert len(list(tmp_path.iterdir())) == 1  # the other store's
