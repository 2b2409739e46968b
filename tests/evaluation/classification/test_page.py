import io

import pytest
from PIL import Image

from tests.browser import Browser
from tests.evaluation import contents
from vmm.evaluation.classification.page import confusion_map, write_page, wrong_samples
from vmm.evaluation.classification.results import ClassificationResult
from vmm.evaluation.common.findings import Finding
from vmm.pages import data_uri

FRAMES = io.BytesIO()
Image.new("RGB", (224, 56)).save(FRAMES, "JPEG")
PICTURE = data_uri("image/jpeg", FRAMES.getvalue())


@pytest.fixture
def page(tmp_path):
    """Write a page, and give its text."""

    def page(content):
        write_page(tmp_path / "page.html", result_of(content))
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return page


def result_of(content):
    del content["schema"]
    return ClassificationResult(**content)


def test_classes_stand_with_what_they_are_taken_for_the_worst_first(page):
    content = contents.classification()
    content["numbers"]["per_class"].reverse()
    content["findings"] = [Finding("ties", "some", "much")]
    text = page(content)
    assert "<h2>Classes</h2>" in text and text.index("33.3") < text.index("&lt;i&gt;milk</td>")
    assert "<i>milk" not in text and "<b>ties</b>: some" in text
    assert text.count("data:image/png;base64,") == 1 and "published" not in text
    many = contents.classification()
    many["numbers"]["per_class"] *= 11
    text = page(many)
    assert (
        "The 20 worst classes" in text and text.count("&lt;i&gt;milk</td>") == 20 - 11 + 2
    )  # and of two wrong answers


def test_wrong_answers_show_their_clip(page, tmp_path):
    result = result_of(contents.classification())
    wrong = wrong_samples(result)
    assert [result.predictions[row][1:] for row in wrong] == [[0, 1], [0, 1]]
    picture = "data:image/jpeg;base64,AAAA"
    write_page(tmp_path / "page.html", result, {wrong[0]: picture})
    text = (tmp_path / "page.html").read_text()
    assert text.count(f'src="{picture}"') == 1 and text.count("<td>not shown</td>") == 1


def test_wrong_answers_have_the_name_of_their_file_where_it_is_known(tmp_path):
    result = result_of(contents.classification())
    first, second = wrong_samples(result)
    write_page(tmp_path / "page.html", result, files={first: "dogs/<1>.mp4", second: ""})
    text = (tmp_path / "page.html").read_text()
    assert "<td>dogs/&lt;1&gt;.mp4</td>" in text
    assert f"<td>{result.predictions[first][0]}</td>" not in text
    assert f"<td>{result.predictions[second][0]}</td>" in text


def test_names_of_samples_leave_room_for_the_classes_on_a_phone(chromium, tmp_path):
    content = contents.classification()
    content["predictions"] = [[f"test-{n:06}/{n:09}", 0, 1] for n in range(3)]
    write_page(tmp_path / "page.html", result_of(content), {0: PICTURE})
    browser = Browser(chromium, tmp_path / "profile", 390, 900)
    try:
        browser.show(tmp_path / "page.html")
        row = "[...document.querySelector('img.strip').closest('tr').children]"
        ends = browser.evaluate(f"{row}.map(c => c.getBoundingClientRect().right)")
        assert ends[2] < 355, "the class is beyond the edge"
        option = "document.querySelector('.option').getClientRects().length"
        assert browser.evaluate(option) == 1, "a line ends inside of an option"
    finally:
        browser.close()


def test_published_numbers_stand_beside_ours(page):
    content = contents.classification()
    content["data"]["test_set"] = "SSv2"
    text = page(content)
    assert "Beside published numbers" in text and "VideoMamba-Ti, 8 frames" in text
    assert text.index("<td>40.00</td>") < text.index("<td>65.10</td>")
    assert '<a href="https://arxiv.org/abs/2403.06977">arXiv 2403.06977</a>' in text


def test_a_number_to_predict_has_no_classes(page):
    text = page(contents.regression())
    assert "0.2500" in text and "VideoMamba-Ti, 32 frames" in text and "<td>0.26</td>" in text
    assert "data:image" not in text and "Classes" not in text


def test_the_picture_has_the_share_of_each_class_that_is_taken_for_another():
    drawn = confusion_map(result_of(contents.classification())).axes[0].images[0].get_array()
    shares = [[100 / 3, 200 / 3, 0], [0, 100, 0], [0, 0, 0]]
    for row, expected in zip(drawn.tolist(), shares, strict=True):
        assert row == pytest.approx(expected)
