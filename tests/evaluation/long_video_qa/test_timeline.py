import re
import xml.etree.ElementTree as ET

import pytest

from vmm.evaluation.long_video_qa.timeline import axis, ticks, timeline_svg
from vmm.text_output import visible


def test_a_timeline_has_a_line_per_option_with_the_right_one_marked():
    question = {
        "question": "when & where?",
        "options": ["a", "b <", "c"],
        "answer": 1,
        "chosen": 2,
        "timeline": [[0.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.25]],
        "seconds": [0.0, 30.0, 60.0],
    }
    svg = timeline_svg(question)
    assert svg.count("<polyline") == 3 and "when &amp; where?" in svg
    assert "✓ b &lt;" in svg and "c (chosen)" in svg and svg.count("✓") == 1
    lines = re.findall(r'points="([^"]*)" fill="none" stroke="([^"]*)" stroke-width="([^"]*)"', svg)
    assert lines[-1][1:] == ("#1a7f37", "3")  # the right one, drawn last
    points = [[float(v) for v in point.split(",")] for point in lines[-1][0].split()]
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] < points[1][1] == points[2][1]  # higher is more relevant
    assert "0:00" in svg and "1:00" in svg


def test_long_options_go_on_in_the_next_line():
    long = "someone opens the window of the kitchen, and then looks for the keys in the drawer"
    question = {"question": "?", "options": [long, "short"], "answer": 0, "chosen": 0,
                "timeline": [[0.1, 0.2], [0.2, 0.3]], "seconds": [0.0, 1.0]}  # fmt: skip
    svg = timeline_svg(question)
    lines = re.findall(r'<text x="[^"]*" y="(\d+)" fill="[^"]*">([^<]*)<', svg)
    heights = {text: int(y) for y, text in lines}
    assert all(len(text) <= 42 for text in heights) and len(heights) == 4
    assert [text for text in heights if text != "short"] == [
        "✓ someone opens the window of the kitchen,",
        "and then looks for the keys in the drawer",
        "(chosen)",
    ]
    assert sorted(heights.values()) == [160, 179, 198, 217] and heights["short"] == 217
    assert int(re.search(r' height="(\d+)"', svg)[1]) > 217


@pytest.mark.parametrize("timeline", [[], [[0.5], [0.5]]], ids=["unreadable", "one vector"])
def test_a_timeline_without_a_course(timeline):
    question = {"question": "?", "options": ["a", "b"], "answer": None, "chosen": None,
                "timeline": timeline, "seconds": [0.0] * bool(timeline)}  # fmt: skip
    svg = timeline_svg(question)
    assert svg.count("<polyline") == 2 and "nan" not in svg


@pytest.mark.parametrize(
    "odd",
    ["a\x0bb\0", "half \ud83d", "\x1b[31m", "\ufffe", "<script>alert(1)</script>", "]]>"],
)
def test_odd_options_leave_a_picture(odd):
    question = {"question": odd, "options": [odd, odd + "2"], "answer": 0, "chosen": 1,
                "timeline": [], "seconds": []}  # fmt: skip
    drawn = ET.fromstring(timeline_svg(question))
    assert any(visible(odd) in (text or "") for text in drawn.itertext())


@pytest.mark.parametrize(
    ("last", "labels"),
    [
        (0.04, ["0.00 s", "0.01 s", "0.02 s", "0.03 s", "0.04 s"]),
        (1.0, ["0.0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1.0 s"]),
        (2.5, ["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s", "2.5 s"]),
        (3.0, ["0:00", "0:01", "0:02", "0:03"]),
        (60.0, ["0:00", "0:15", "0:30", "0:45", "1:00"]),
        (3599.0, ["0:00", "15:00", "30:00", "45:00"]),
        (90_000.0, ["0:00", "300:00", "600:00", "900:00", "1200:00", "1500:00"]),
    ],
)
def test_ticks_are_round_and_different(last, labels):
    assert [text for _, text in ticks(last)] == labels
    assert ticks(last)[-1][0] <= last + 1e-6
    for tenths in range(1, 3000):
        texts = [text for _, text in ticks(tenths / 10)]
        assert 2 <= len(texts) == len(set(texts)) <= 6, tenths


def test_a_short_clip_has_its_ticks_where_they_are_and_heights_that_differ():
    question = {"question": "?", "options": ["a"], "answer": 0, "chosen": 0,
                "timeline": [[0.0312, 0.0334, 0.0321]], "seconds": [0.0, 1.5, 3.0]}  # fmt: skip
    svg = timeline_svg(question)
    places = dict(re.findall(r'x="([^"]*)" y="[^"]*" text-anchor="middle">([^<]*)<', svg))
    assert list(places.values()) == ["0:00", "0:01", "0:02", "0:03"]
    x = [float(place) for place in places]
    assert x[1] - x[0] == pytest.approx((x[3] - x[0]) / 3, abs=0.2)
    assert ">0.031<" in svg and ">0.033<" in svg


def test_the_axis_has_the_whole_video_also_after_its_last_frame():
    question = {"question": "?", "options": ["a"], "answer": 0, "chosen": 0,
                "timeline": [[0.25, 0.75]], "seconds": [1.0, 2.0], "duration": 4.0}  # fmt: skip
    svg = timeline_svg(question)
    places = dict(re.findall(r'x="([^"]*)" y="[^"]*" text-anchor="middle">([^<]*)<', svg))
    assert [*places.values()] == ["0:00", "0:01", "0:02", "0:03", "0:04"]
    (left, length), whole = axis(question), float(re.search(r'width="(\d+)"', svg)[1])
    start, end = whole * left, whole * (left + length)
    assert [*map(float, places)] == pytest.approx([start + (end - start) * i / 4 for i in range(5)])
    line = re.findall(r'points="([^"]*)"', svg)[0]
    x, y = zip(*(map(float, point.split(",")) for point in line.split()), strict=True)
    quarter = (end - start) / 4
    assert x == pytest.approx((start + quarter, start + 2 * quarter, end), abs=0.1)
    assert y[0] > y[1] == y[2]  # what is shown last stays
    before = timeline_svg({k: v for k, v in question.items() if k != "duration"})
    assert "0:04" not in before and "2.0 s" in before  # a result of an older version
    alone = question | {"timeline": [[0.5]], "seconds": [1.5]}
    line = re.findall(r'points="([^"]*)"', timeline_svg(alone))[0]
    ends = [whole * part for part in (axis(alone)[0], sum(axis(alone)))]
    assert [float(p.split(",")[0]) for p in line.split()] == pytest.approx(ends, abs=0.1)
