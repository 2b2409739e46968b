import pytest

from tests.evaluation import contents
from vmm.evaluation.open_qa.page import write_page, wrong_replies
from vmm.evaluation.open_qa.results import OpenQaResult


@pytest.fixture
def page(tmp_path):
    """Write a page, and give its text."""

    def page(content):
        del content["schema"]
        write_page(tmp_path / "page.html", OpenQaResult(**content))
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return page


def test_wrong_answers_are_shown_with_the_known_ones(page):
    text = page(contents.open_qa())
    assert "&lt;i&gt;which?</td><td>blue</td><td>a, b</td>" in text
    assert "who?</td><td>(unreadable)</td><td>me</td>" in text and "what?</td>" not in text
    assert "The video helps" in text and "not zero-shot" in text and "published" not in text


def test_only_the_first_wrong_answers_are_shown(page):
    content = contents.open_qa()
    content["replies"] = content["replies"][1:2] * 30
    assert page(content).count("which?") == 20
    right = contents.open_qa()
    right["replies"] = right["replies"][:1]
    assert "The first wrong answers" not in page(right)


def test_published_numbers_stand_beside_ours(page):
    content = contents.open_qa()
    content["data"]["test_set"] = "MSVD-QA"
    text = page(content)
    assert "<td>mine</td><td>33.3</td>" in text
    assert "<td>UMT, from B to L</td><td>49.1 to 55.2</td>" in text
    assert '<a href="https://arxiv.org/abs/2303.16058">arXiv 2303.16058</a>' in text


def test_a_wrong_answer_shows_its_clip(tmp_path):
    content = contents.open_qa()
    del content["schema"]
    result = OpenQaResult(**content)
    first, second = wrong_replies(result)
    picture = "data:image/jpeg;base64,AAAA"
    write_page(tmp_path / "page.html", result, {first: picture})
    text = (tmp_path / "page.html").read_text()
    shown = f'<td><img class="strip" alt="frames of the clip" src="{picture}"></td><td>'
    assert shown in text and "<td>not shown</td><td>who?</td>" in text and second != first
