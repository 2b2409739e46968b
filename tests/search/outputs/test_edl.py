import os
import re
import tarfile

import pytest
from opentimelineio.opentime import from_timecode

from vmm.search.outputs.edl import write
from vmm.search.sources import Source

EVENT = re.compile(
    r"(\d{3})  (\S{1,8}) +V     C        "
    r"(\S{11}) (\S{11}) (\S{11}) (\S{11})\n((?:\* .*\n)*)",
)  # fmt: skip


def read(path, rate):
    """Title, whether frames are dropped, and events: reel, four numbers of frames, comments."""
    text = path.read_text(encoding="utf-8")
    title, mode = re.match(r"TITLE: (.*)\nFCM: (DROP|NON-DROP) FRAME\n\n", text).groups()
    events, at = [], text.index("\n\n") + 2
    for found in EVENT.finditer(text):
        assert found.start() == at and int(found[1]) == len(events) + 1
        at = found.end()
        codes = [found[i] for i in (3, 4, 5, 6)]
        assert all((";" in code) == (mode == "DROP") for code in codes)
        frames = [round(from_timecode(code, rate).value) for code in codes]
        comments = dict(line[2:].split(": ", 1) for line in found[7].splitlines())
        events.append((found[2], frames, comments))
    assert at == len(text)
    return title, mode == "DROP", events


def test_events_follow_each_other_at_the_cameras_timecode(film, found, tmp_path):
    a, b = film("a.mov", 25, "10:00:00:00"), film("b.mkv", 25)
    result = found((a, 0.2, 0.6), (b, 0.0, 0.52), (a, 0.7, 1.0), match=1.5, score=0.25)
    assert write([result], tmp_path / "hits.edl") == [f"wrote {tmp_path / 'hits.edl'}"]
    title, drop, events = read(tmp_path / "hits.edl", 25)
    assert title == "hits" and not drop
    hour = 25 * 3600
    assert [e[1] for e in events] == [
        [10 * hour + 5, 10 * hour + 15, hour, hour + 10],
        [0, 13, hour + 10, hour + 23],
        [10 * hour + 18, 10 * hour + 25, hour + 23, hour + 30],  # 17.5 is even when rounded
    ]
    assert [e[0] for e in events] == ["A", "B", "A"]
    assert events[1][2] == {
        "FROM CLIP NAME": "b.mkv",
        "SOURCE FILE": str(b),
        "COMMENT": "a red circle: rank 2, similarity 0.490, match 1.50, score 0.25",
    }


def test_drop_frame(film, found, tmp_path):
    rate = 30000 / 1001
    path = film("n.mov", "30000/1001", "00:59:59;20", seconds=2)
    write([found((path, 0.5, 1.5))], tmp_path / "hits.edl")
    _, drop, events = read(tmp_path / "hits.edl", rate)
    first = round(from_timecode("00:59:59;20", rate).value)
    begin = round(from_timecode("01:00:00;00", rate).value)
    assert drop and begin == 107892
    assert events[0][1] == [first + 15, first + 45, begin, begin + 30]
    assert "01:00:00;05" in (tmp_path / "hits.edl").read_text()  # the source passes the full hour


def test_a_list_for_each_rate(film, found, tmp_path):
    cameras = [
        film("p.mp4", 25), film("drop.mov", "30000/1001", "01:00:00;00"),
        film("whole.mov", "30000/1001", "01:00:00:00"), film("slow.mp4", 12),
    ]  # fmt: skip
    said = write([found(*((path, 0.0, 0.5) for path in cameras))], tmp_path / "hits.edl")
    names = {path.name for path in tmp_path.glob("*.edl")}
    assert names == {f"hits.{rate}.edl" for rate in ("25fps", "29.97df", "29.97fps", "24fps")}
    for name in names:
        assert f"wrote {tmp_path / name}" in said
    assert "these are of 24fps, 25fps, 29.97df, 29.97fps: one list for each" in "; ".join(said)
    assert "do not count the frame rate of slow.mp4 (12)" in "; ".join(said)
    assert read(tmp_path / "hits.24fps.edl", 24)[2][0][1] == [0, 12, 86400, 86412]
    assert read(tmp_path / "hits.29.97df.edl", 30000 / 1001)[1]
    assert not read(tmp_path / "hits.29.97fps.edl", 30000 / 1001)[1]


def test_names_from_anywhere_stay_in_their_lines_and_reels_apart(film, found, tmp_path):
    first = film(os.fsdecode(b"caf\xe9\n\x1b001  AX.mp4"))
    others = [film(f"holiday in spain {n}.mp4") for n in range(11)]
    hits = [(path, 0.0, 0.4) for path in [first, *others, others[0]]]
    write([found(*hits, text="x\n002  AX")], tmp_path / "hits.edl")
    events = read(tmp_path / "hits.edl", 25)[2]
    assert events[0][2]["FROM CLIP NAME"] == r"caf\xe9\x0a\x1b001  AX.mp4"
    assert events[0][2]["COMMENT"].startswith(r"x\x0a002  AX: rank 1")
    reels = [e[0] for e in events]
    assert len(set(reels)) == 12 and reels[1] == reels[-1] == "HOLIDAYI"
    assert reels[2] == "HOLIDAY2" and reels[11] == "HOLIDA11"


def test_more_events_than_a_list_may_have(film, found, tmp_path):
    path = film("a.mp4")
    write([found(*[(path, 0.0, 0.2)] * 1001)], tmp_path / "hits.edl")
    lists = [read(tmp_path / f"hits.{label}.edl", 25)[2] for label in ("25fps", "25fps-2")]
    assert [len(events) for events in lists] == [999, 2]


def test_a_day_is_too_long(film, found, tmp_path):
    with pytest.raises(ValueError, match="longer than the 24 hours of a timecode from number 3 on"):
        write([found(*[(film("a.mp4"), 0.0, 36_000.0)] * 3)], tmp_path / "hits.edl")
    assert not list(tmp_path.glob("*.edl"))


def test_what_is_left_out_is_said(film, found, tmp_path):
    path, gone, odd = film("a.mp4"), film("gone.mp4"), film("odd.mkv", 25, "01:00:00:77")
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(path, "b.mp4")
    gone.unlink()
    (tmp_path / "films" / "bad.mp4").write_bytes(b"no video")
    hits = [((shard, "b.mp4"), 0.0, 0.4), (path, 0.2, 0.4), (gone, 0.0, 0.4), (odd, 0.0, 0.4)]
    hits.append((tmp_path / "films" / "bad.mp4", 0.0, 1.0))
    said = write([found(*hits)], tmp_path / "hits.edl")
    assert said[1].startswith("left out 1 of 5 hits: they are in shards")
    assert "`--out FOLDER/`" in said[1]
    assert said[2].startswith("left out 2 of 5 hits: ") and "gone.mp4: [Errno 2]" in said[2]
    assert "bad.mp4: unreadable" in said[2]
    assert said[3] == "no frame can have the timecode of odd.mkv (01:00:00:77); counted from 0"
    events = read(tmp_path / "hits.edl", 25)[2]
    assert [e[2]["COMMENT"][:20] for e in events] == [
        "a red circle: rank 2",
        "a red circle: rank 4",
    ]
    with pytest.raises(ValueError, match="in shards, which editors do not open"):
        write([found(hits[0])], tmp_path / "none.edl")
    with pytest.raises(ValueError, match="there are no hits to write"):
        write([found()], tmp_path / "none.edl")
    assert not (tmp_path / "none.edl").exists() and Source(shard, "b.mp4").content()
