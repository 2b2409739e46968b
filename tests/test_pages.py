import base64

import jinja2
import pytest

from vmm.pages import command, data_uri, render, sentence


def test_a_template_builds_on_those_of_other_folders(tmp_path):
    own, common = tmp_path / "own", tmp_path / "common"
    for folder in (own, common):
        folder.mkdir()
    (common / "page.j2").write_text("<h1>{% block title %}{% endblock %}</h1>")
    (own / "a.j2").write_text(
        "{% extends 'page.j2' %}\n{% block title %}{{ shown | shout }}{{ name }}{% endblock %}"
    )
    said = render("a.j2", own, common, filters={"shout": str.upper}, shown="<b>", name="&")
    assert said == "<h1>&lt;B&gt;&amp;</h1>"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        render("a.j2", own, common, filters={"shout": str.upper}, shown="a")


def test_a_file_as_an_address():
    assert data_uri("image/png", b"\x00\xff") == "data:image/png;base64,AP8="
    assert base64.b64decode(data_uri("a/b", b"many bytes").partition(",")[2]) == b"many bytes"


def test_options_of_a_command_are_kept_in_a_line():
    said = command("vmm fit -c a.yaml --model.init_args.x 'a --b' <i> --key=1 a--b")
    assert said.count('<span class="option">') == 3 and "&lt;i&gt;" in said
    assert '<span class="option">--model.init_args.x</span> &#39;a' in said
    assert '<span class="option">--key</span>=1 a--b' in said


def test_commands_in_a_sentence_are_marked():
    said = sentence("give `vmm eval x --k <n>` a file, or `--help`; a ` alone")
    option = '<span class="option">--k</span>'
    assert said.startswith(f"give <code>vmm eval x {option} &lt;n&gt;</code> a file, or <code>")
    assert said.endswith("</code>; a ` alone")
