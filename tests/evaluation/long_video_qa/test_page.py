import shutil

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


def test_the_pictures_of_a_page_come_from_its_folder_only(result, tmp_path):
    shutil.rmtree(tmp_path / "out" / "timelines")
    result.questions[0]["video"] = 3
    write_page(tmp_path / "page.html", result, tmp_path / "out")
    assert "data:image/jpeg" not in (tmp_path / "page.html").read_text(encoding="utf-8")
