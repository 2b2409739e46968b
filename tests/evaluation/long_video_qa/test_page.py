import base64
import re
import shutil

import pytest

from tests.browser import Browser
from vmm.evaluation.long_video_qa.page import shown_questions, write_page


def test_the_page_is_one_file_and_escapes_what_it_is_given(result, tmp_path):
    result.questions[0]["question"] = "<script>alert(1)</script>"
    result.questions[0]["options"][0] = "<b>&amp;"
    write_page(tmp_path / "page.html", result, tmp_path / "out")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/svg+xml;base64,") == len(shown_questions(result)) == 6
    assert page.count("data:image/jpeg;base64,") == 6 and 'src="http' not in page
    assert result.numbers["verdict"] in page and "one standard error, clustered by video" in page


def test_a_browser_shows_the_page(result, tmp_path, look_at):
    look_at(tmp_path / "out" / "report.html")


@pytest.mark.parametrize("width", [1280, 390])
def test_frames_stand_above_the_time_they_are_of(result, tmp_path, chromium, width):
    result.questions[0]["timeline"][0][0] = 1.00001  # heights with many digits move the axis
    page = tmp_path / "page.html"
    write_page(page, result, tmp_path / "out")
    browser = Browser(chromium, tmp_path / "profile", width, 900)
    try:
        browser.show(page)
        edges = "i => {const r = i.getBoundingClientRect(); return [i.src, r.left, r.right]}"
        images = browser.evaluate(f"[...document.images].map({edges})")
    finally:
        browser.close()
    assert len(images) == 12
    for (_, *strip), (picture, left, right) in zip(images[::2], images[1::2], strict=True):
        svg = base64.b64decode(picture.partition(",")[2]).decode()
        whole = float(re.search(r'viewBox="0 0 (\d+)', svg)[1])
        axis = [float(x) for x in re.search(r'<line x1="(\d+)" x2="(\d+)"', svg).groups()]
        assert strip == pytest.approx([left + (right - left) * x / whole for x in axis], abs=1)
        ticks = re.findall(r'x="([^"]*)" y="[^"]*" text-anchor="middle">([^<]*)<', svg)
        assert [text for _, text in ticks] == ["0:00", "0:01", "0:02", "0:03", "0:04"]
        assert float(ticks[-1][0]) == pytest.approx(axis[1])  # the films last 4 seconds


def test_the_pictures_of_a_page_come_from_its_folder_only(result, tmp_path):
    shutil.rmtree(tmp_path / "out" / "timelines")
    result.questions[0]["video"] = 3
    write_page(tmp_path / "page.html", result, tmp_path / "out")
    assert "data:image/jpeg" not in (tmp_path / "page.html").read_text(encoding="utf-8")
