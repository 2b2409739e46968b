from vmm.evaluation.probe.page import write_page


def test_the_page_shows_names_as_they_are_and_what_the_numbers_do_not_show(result, tmp_path):
    write_page(tmp_path / "probe.html", result)
    page = (tmp_path / "probe.html").read_text()
    assert "&lt;i&gt;tea" in page and "What they do not show" in page
    assert "data:image/png" in page and "http:" not in page.replace("http-equiv", "")
