import re
import xml.etree.ElementTree as ET

import pytest

from vmm.evaluation.long_video_qa.timeline import timeline_svg
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
