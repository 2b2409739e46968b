import json

import numpy as np
import pytest
import torch

from vmm.evaluation.grounding import training
from vmm.evaluation.grounding.head import RECORD, WEIGHTS, Batch, MomentHead
from vmm.evaluation.grounding.training import Lesson, collate, targets_of, train_head

WIDTH = 8


def lesson(number, frames=12):
    """A video in which a word is seen for some seconds, elsewhere noise."""
    draw = torch.Generator().manual_seed(number)
    vectors = torch.randn(frames, WIDTH, generator=draw)
    text = torch.nn.functional.one_hot(torch.tensor(number % 4), WIDTH).float()
    first = int(torch.randint(0, frames - 4, (), generator=draw))
    vectors[first : first + 3] = 0.3 * vectors[first : first + 3] + 3 * text
    centres = (torch.arange(frames) + 0.5) / frames
    moment = torch.tensor([[first, first + 3]]) / frames
    return Lesson(number, torch.nn.functional.normalize(vectors, dim=-1), text, centres, moment)


def pair(number, frames=12):
    one = lesson(number, frames)
    return one, targets_of(one.centres, one.moments)


def test_targets_by_hand():
    centres = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    found = targets_of(centres, torch.tensor([[0.2, 0.8], [0.45, 0.6]]))
    assert found.inside.tolist() == [0, 1, 1, 1, 0]
    expected = torch.tensor([[0, 0], [0.1, 0.5], [0.05, 0.1], [0.5, 0.1], [0, 0]])
    torch.testing.assert_close(found.distances, expected)
    between = targets_of(centres, torch.tensor([[0.32, 0.36]]))
    assert between.inside.tolist() == [0, 1, 0, 0, 0] and between.distances.min() == 0


def test_padding_changes_nothing():
    torch.manual_seed(0)
    head = MomentHead(WIDTH).eval()
    alone, _ = collate([pair(0, 7)])
    padded, targets = collate([pair(0, 7), pair(1, 30)])
    assert padded.known.sum(1).tolist() == [7, 30] and targets.inside.shape == (2, 30)
    for one, many in zip(head(alone), head(padded), strict=True):
        torch.testing.assert_close(one[0], many[0, :7])


def test_it_learns_where_a_word_is_seen(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 80)
    lessons = [lesson(number) for number in range(40)]
    head, told = train_head(lessons)
    assert told["sentences"] == told["videos"] == 40 and told["steps"] > 0
    assert told["held_out_loss"] < 0.8 * told["first_loss"]
    found = 0
    for number in range(100, 120):
        new = lesson(number)
        ((windows, inside),) = head.find(new.frames, new.text[None], np.arange(13.0))
        start, end = (12 * new.moments[0]).tolist()
        common = min(end, windows[0, 1]) - max(start, windows[0, 0])
        found += common / (max(end, windows[0, 1]) - min(start, windows[0, 0])) > 0.5
        assert inside.shape == (12,) and (windows[:, 0] < windows[:, 1]).all()
    assert found >= 12


def test_the_same_lessons_give_the_same_head(monkeypatch):
    monkeypatch.setattr(training, "STEPS", 10)
    lessons = [lesson(number) for number in range(6)]
    head, again = (train_head(lessons)[0] for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True)
    )


def test_one_video_is_too_few():
    with pytest.raises(ValueError, match="two videos or more, the training split has 1"):
        train_head([lesson(0)])


def test_it_is_read_as_it_was_written_or_refused(tmp_path):
    head = MomentHead(WIDTH)
    folder = tmp_path / "a" / "head"
    head.save(folder, {"model": "m"})
    read, record = MomentHead.load(folder)
    assert record["model"] == "m" and not read.training
    batch, _ = collate([pair(0)])
    assert torch.equal(read(batch)[0], head(batch)[0])
    assert isinstance(batch, Batch)
    for name, damage in (
        (RECORD, lambda text: text.replace(b'"format": 1', b'"format": 9')),
        (RECORD, lambda text: json.dumps({**json.loads(text), "sizes": {"depth": 2}}).encode()),
        (RECORD, lambda text: text[:20]),
        (WEIGHTS, lambda data: data[:-5]),
        (WEIGHTS, lambda data: b""),
    ):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(damage(whole))
        with pytest.raises(ValueError, match="holds no head of this version"):
            MomentHead.load(folder)
        (folder / name).write_bytes(whole)
