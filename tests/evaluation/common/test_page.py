import jinja2
import pytest

from vmm.evaluation.common.page import render, write_accuracy_page
from vmm.pages import data_uri

CONTENT = {
    "title": "<b>title</b>",
    "summary": "what was measured",
    "table": [["", "percent", "95 % interval"], ["top-1", "40.0", "10.0 to 70.0"]],
    "note": "a note",
    "tables": {"Classes & numbers": [["class", "samples"], ["<i>tea</i>", "3"]]},
    "findings": [],
    "pictures": {"a picture": data_uri("image/png", b"\x89PNG")},
    "card": [("test set", "shards")],
}


def test_an_accuracy_page_escapes_what_it_is_given_and_loads_nothing(tmp_path):
    write_accuracy_page(tmp_path / "page.html", **CONTENT)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;title" in page and "&lt;i&gt;tea" in page and "<i>tea" not in page
    assert "Classes &amp; numbers" in page and "what was measured" in page and "a note" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page and 'src="http' not in page
    assert page.index("40.0") < page.index("tea") < page.index("shards")


def test_a_template_whose_content_is_missing_is_an_error(tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="card"):
        render("accuracy.html.j2", **{k: v for k, v in CONTENT.items() if k != "card"})


def test_a_template_of_one_s_own_builds_on_the_common_ones(tmp_path):
    (tmp_path / "own.j2").write_text('{% extends "accuracy.html.j2" %}')
    assert render("own.j2", tmp_path, **CONTENT) == render("accuracy.html.j2", **CONTENT)
