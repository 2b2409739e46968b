import numpy as np
import pytest

from vmm.evaluation.probe.readers import STRENGTHS, hold_out, read_by_neighbours, read_linearly


def blobs(each, seed, spread=0.5):
    rng = np.random.default_rng(seed)
    labels = np.arange(3).repeat(each)
    return np.eye(3, 6)[labels] * 3 + spread * rng.standard_normal((3 * each, 6)), labels


def test_clips_of_one_video_stay_together_and_classes_are_alike():
    labels, groups = np.arange(4).repeat(50), np.arange(200) // 5
    fitted, held = hold_out(labels, groups, 0)
    assert not set(groups[fitted]) & set(groups[held])
    assert sorted([*fitted, *held]) == [*range(200)]
    assert np.bincount(labels[held]).tolist() == [10, 10, 10, 10]
    assert [*held] != [*hold_out(labels, groups, 1)[1]]


def test_few_clips_are_parted_too():
    fitted, held = hold_out(np.array([0, 0, 1, 1]), np.arange(4), 0)
    assert len(fitted) == len(held) == 2
    with pytest.raises(ValueError, match="all 4 training clips are of one video"):
        hold_out(np.array([0, 0, 1, 1]), np.zeros(4, int), 0)


@pytest.mark.parametrize("read", [read_linearly, read_by_neighbours])
def test_what_can_be_told_apart_is(read):
    (train, labels), (test, right) = blobs(20, 0), blobs(10, 1)
    calls = []
    parts = hold_out(labels, np.arange(60), 0)
    found = read(train, labels, test, parts, lambda: calls.append(1))
    assert (found.scores.argmax(1) == right).mean() > 0.9 and found.held_out > 90
    assert found.scores.shape == (30, 3) and len(calls) > 3
    assert np.allclose(found.scores.sum(1), 1)


def test_neither_reads_noise():
    (train, labels), (test, right) = blobs(20, 0), blobs(100, 1)
    shuffled = np.random.default_rng(2).permutation(labels)
    for read in (read_linearly, read_by_neighbours):
        found = read(train, shuffled, test, hold_out(labels, np.arange(60), 0), lambda: None)
        assert (found.scores.argmax(1) == right).mean() < 0.65


def test_the_setting_is_chosen_on_clips_that_were_held_out():
    """Many useless channels: weak regularisation fits them, and held-out clips tell."""
    rng = np.random.default_rng(0)
    labels = np.arange(2).repeat(40)
    train = np.c_[(2 * labels - 1) * 0.4, rng.standard_normal((80, 300))]
    found = read_linearly(train, labels, train, hold_out(labels, np.arange(80), 0), lambda: None)
    assert found.chosen["C"] < STRENGTHS[-1] and not found.edge


def test_a_class_that_the_fit_did_not_see_is_no_other_class():
    train, labels = blobs(10, 0, spread=0.1)
    lost = (np.flatnonzero(labels != 1), np.flatnonzero(labels == 1))
    for read in (read_linearly, read_by_neighbours):
        found = read(train, labels, train, lost, lambda: None)
        assert found.held_out == 0  # the class was not known while settings were chosen
        assert (found.scores.argmax(1) == labels).all()
