import json
import logging
import multiprocessing

import pytest

from vmm.data.faults import BadSample, BadSamples, ReadingBoard, UnusableData


def bad_sample(number, reason="too long"):
    return BadSample("shard", str(number), reason, f"{number} frames")


def test_bad_samples_are_logged_now_and_then(caplog):
    bad = BadSamples()
    with caplog.at_level(logging.WARNING):
        for number in range(120):
            bad.add(bad_sample(number))
        bad.add(BadSample("shard", "x\n", "empty"))
        bad.add(BadSample("shard", "", "damaged"))
        bad.add(BadSample("", "a/b", "missing"))
    names = ["shard/0", "shard/9", "shard/99", "shard/x\n", "shard", "a/b"]
    assert [r.args[0] for r in caplog.records] == names
    assert "'shard/x\\n'" in caplog.text  # names come from outside: no line breaks in the log


def test_every_sample_is_recorded_once_per_reason(tmp_path):
    path = tmp_path / "made" / "bad.jsonl"
    for process in range(2):
        bad = BadSamples(str(path))
        for number in (1, 2, 1):
            bad.add(bad_sample(number + process))
        bad.write(bad_sample(1, "no caption"))
        assert bad.counts == {"too long": 3}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["key"], line["reason"]) for line in lines] == [
        *[("1", "too long"), ("2", "too long"), ("1", "no caption")],
        ("3", "too long"),
    ]
    assert lines[0] == {
        "shard": "shard", "key": "1", "reason": "too long", "detail": "1 frames",
    }  # fmt: skip


def test_a_record_that_a_kill_has_cut_is_read(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"shard": "s", "key": "1", "reason": "too long"}\n[1]\n{"shard": "s\xff')
    bad = BadSamples(str(path))
    bad.write(BadSample("s", "1", "too long"))
    assert path.read_bytes().endswith(b"\xff")


@pytest.mark.parametrize(
    ("limit", "every", "stops_at"), [(0.1, 5, 160), (0.1, 20, None), (0.0, 50, 50), (1.0, 1, None)]
)
def test_too_much_is_a_stop_with_a_table(limit, every, stops_at, tmp_path):
    bad = BadSamples(str(tmp_path / "bad.jsonl"), limit)
    for number in range(1, 1000):
        if number % every:
            bad.usable += 1
            continue
        bad.add(bad_sample(number, "too long" if number % 2 else "empty"))
        if number == stops_at:
            break
        bad.check()
    if stops_at:
        with pytest.raises(UnusableData, match=rf"of {stops_at} .* max_bad = {limit:.0%}") as stop:
            bad.check()
        assert "empty " in str(stop.value) and "bad.jsonl" in str(stop.value)
        assert f"e.g. 'shard/{every if every % 2 == 0 else 2 * every}'" in str(stop.value)
    else:
        assert number == 999


def note(board):
    board.note(1, "video-0/\n\u00e9" + "x" * 999)


def test_what_a_dead_worker_was_reading_is_known():
    board = ReadingBoard(2)
    assert str(board) == "nothing yet"
    worker = multiprocessing.get_context("spawn").Process(target=note, args=(board,))
    worker.start()
    worker.join()
    text = str(board)
    assert text.startswith("worker 1: 'video-0/\\n\\xe9xxx") and text.endswith(" s")
    assert len(text) < 450
