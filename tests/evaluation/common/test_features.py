"""An evaluation that was killed goes on from its features, and from no others."""

import json

import pytest
import torch

from vmm.evaluation.common.features import Clip, FeatureStore
from vmm.evaluation.common.models import ClipVectors

CLIPS = [Clip("a/ä \u2028 1", ["one", "uno"], "eno", None), Clip("b", [], None, "unreadable"),
         Clip("c", ["two"], None, None)]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features", {"model": 1}, 5)


def vectors(*rows):
    rows = torch.tensor(rows, dtype=torch.float32)
    return ClipVectors(rows[:, None, None].repeat(1, 1, 2), rows[:, None, None].repeat(1, 3, 4))


def test_what_is_added_is_read(store, tmp_path):
    store.add([0, 1], CLIPS[:2], vectors(1))
    store.add([4], CLIPS[2:], vectors(9))
    again = FeatureStore(tmp_path / "features", {"model": 1}, 5)
    assert again.finished() == {0: CLIPS[0], 1: CLIPS[1], 4: CLIPS[2]}
    assert again.read("projected").shape == (5, 1, 2)
    assert again.read("tokens")[[0, 4], 2, 3].tolist() == [1, 9]
    again.read("tokens")[0] = 7  # changes a copy, not the file
    assert store.read("tokens")[0, 0, 0] == 1


@pytest.mark.parametrize("other", [{"model": 2}, {"model": 1, "data": "x"}])
def test_features_of_something_else_are_never_read(store, tmp_path, other):
    store.add([0], CLIPS[:1], vectors(1))
    assert FeatureStore(tmp_path / "features", other, 5).finished() == {}
    assert FeatureStore(tmp_path / "features", {"model": 1}, 6).finished() == {}


def test_a_torn_line_is_a_clip_that_is_not_finished(store, tmp_path):
    store.add([0], CLIPS[:1], vectors(1))
    (lines,) = store.folder.glob("clips-*.jsonl")
    with lines.open("a") as file:
        file.write(json.dumps([1, "torn", ["x"]])[:-4])
    other_rank = FeatureStore(tmp_path / "features", {"model": 1}, 5, rank=1)
    assert list(other_rank.finished()) == [0]
    again = FeatureStore(tmp_path / "features", {"model": 1}, 5)
    again.add([2], CLIPS[2:], vectors(3))
    assert list(again.finished()) == [0, 2]


def test_several_processes_write_to_one_store(store, tmp_path):
    other = FeatureStore(tmp_path / "features", {"model": 1}, 5, rank=1)
    other.add([3], CLIPS[2:], vectors(3))
    store.add([0], CLIPS[:1], vectors(1))
    assert store.finished().keys() == other.finished().keys() == {0, 3}
    assert store.read("projected")[[0, 3], 0, 0].tolist() == [1, 3]


def test_images_and_videos_do_not_mix(store):
    store.add([0], CLIPS[:1], vectors(1))
    with pytest.raises(ValueError, match="must not mix images and videos"):
        store.add([2], CLIPS[2:], ClipVectors(torch.zeros(1, 2, 2)))


def test_a_full_disk_is_a_clear_message(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(ValueError, match=r"No space left on device.*--no-rerank"):
        store.add([0], CLIPS[:1], vectors(1))
    with pytest.raises(ValueError, match=r"No space left on device.*with more room$"):
        store.add([0], CLIPS[:1], vectors(1)._replace(tokens=None))


def test_removing_leaves_nothing(store, tmp_path):
    store.add([0], CLIPS[:1], vectors(1))
    store.remove()
    assert list(tmp_path.iterdir()) == []
