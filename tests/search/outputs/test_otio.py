import os
from urllib.parse import unquote_to_bytes, urlsplit

import opentimelineio as otio
import pytest
from opentimelineio.opentime import RationalTime, TimeRange, to_timecode

from vmm.search.outputs.otio import write


def test_a_timeline_opens_with_every_clip_at_its_place(film, found, tmp_path):
    name = os.fsdecode(b"caf\xe9 \n.mov")
    a, b = film(name, "30000/1001", "01:00:00;00", seconds=2), film("b.mkv", 12)
    results = [
        found((a, 0.5, 1.5), (b, 0.0, 0.5), name="q1"),
        found(name="q2", text="nothing"),
        found((b, 0.5, 1.0), name="q3", text="a <blue> square"),
    ]
    out = tmp_path / "deep" / "hits.otio"
    assert write(results, out) == [f"wrote {out}"]
    timeline = otio.adapters.read_from_file(str(out))
    (track,) = timeline.tracks
    assert track.kind == otio.schema.TrackKind.Video and timeline.name == "hits"
    rate = 30000 / 1001
    start = timeline.global_start_time
    assert (start.value, start.rate) == (107892, pytest.approx(rate))
    clips = list(timeline.find_clips())
    assert [clip.name for clip in clips] == [r"caf\xe9 \x0a.mov", "b.mkv", "b.mkv"]
    first = clips[0]
    assert first.source_range == TimeRange(RationalTime(107892 + 15, rate), RationalTime(30, rate))
    code = to_timecode(first.source_range.start_time, rate, drop_frame=True)
    assert code == "01:00:00;15"
    available = TimeRange(RationalTime(107892, rate), RationalTime(60, rate))
    assert first.media_reference.available_range == available
    assert available.contains(first.source_range)
    path = unquote_to_bytes(urlsplit(first.media_reference.target_url).path)
    assert path == os.fsencode(a)
    assert clips[1].source_range == TimeRange(RationalTime(0, 12), RationalTime(6, 12))
    assert clips[2].source_range == TimeRange(RationalTime(6, 12), RationalTime(6, 12))
    assert [[m.name for m in c.markers] for c in clips] == [
        ["a red circle"], [], ["a <blue> square"],
    ]  # fmt: skip
    seconds = timeline.duration().to_seconds()
    assert seconds == pytest.approx(30 / rate + 1, abs=1e-3)
    told = dict(clips[1].metadata["vmm"])
    assert (told["query"], told["rank"], told["file"]) == ("q1", 2, str(b))
    assert told["similarity"] == pytest.approx(0.49) and told["match"] is None


def test_shards_are_left_out_in_words(film, found, tmp_path):
    hits = [(film("a.mp4"), 0.0, 1.0), ((tmp_path / "s.tar", "b.mp4"), 0.0, 1.0)]
    said = write([found(*hits)], tmp_path / "hits.otio")
    assert said[1].startswith("left out 1 of 2 hits: they are in shards")
    timeline = otio.adapters.read_from_file(str(tmp_path / "hits.otio"))
    assert len(list(timeline.find_clips())) == 1
