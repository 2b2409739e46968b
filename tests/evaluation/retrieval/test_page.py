import base64
import io
import json
import re
import subprocess

import numpy as np
from PIL import Image

from vmm.evaluation.retrieval.page import build_report


def test_the_page_shows_the_numbers_and_needs_no_network(tmp_path, result, run):
    out = tmp_path / "site" / "report.html"
    steps = [{"name": "stage 1", "command": "vmm fit -c a.yaml", "seconds": 61.2}]
    table = build_report(
        out, [("stage 1", run)], [("VideoMamba", result), ("reversed", result)], steps
    )
    page = out.read_text()
    for text in ("81.2", "88.5", "97.5", "0.4", "vmm fit -c a.yaml", "77.0 to 85.0", "0.65 M"):
        assert text in page, text
    assert re.search(r"reversed +dual encoder +81\.2", table)
    assert re.search(r"chance +0\.4", table)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4  # recall and ranks; the clips of this result are not there
    assert page.count("<svg") == 2  # training
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    sources = re.findall(r'(?:src|href)="([^"]{12})', page)
    assert sources
    assert all(source.startswith(("data:image/p", "data:video/m")) for source in sources)
    assert not re.search(r"https?://", page)
    for text in ("tied-scores", "2 queries &lt;b&gt;", "the clearest", "the worst", "77. -1.00"):
        assert text in page, text
    for text in ("0123456789abcdef", "256 listed, 255 readable (1 truncated)", "ab" * 32):
        assert text in page, text
    assert page.count('<img alt="Recall over the depth"') == 2  # directions
    assert base64.b64encode(b"moving picture").decode() in page


def test_a_browser_shows_it_on_a_screen_and_on_a_phone(tmp_path, result, run, look_at):
    build_report(tmp_path / "report.html", [("stage 1", run)], [("VideoMamba", result)])
    look_at(tmp_path / "report.html")


def test_a_browser_without_network_shows_it(tmp_path, result, run, chromium):
    build_report(tmp_path / "report.html", [("stage 1", run)], [("VideoMamba", result)])
    shot = tmp_path / "shot.png"
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--window-size=1000,3000", f"--screenshot={shot}", (tmp_path / "report.html").as_uri()),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    assert pixels.shape == (3000, 1000, 3)

    def rows_with(colour):
        return np.flatnonzero((np.abs(pixels.astype(int) - colour) < 12).all(2).any(1))

    assert len(rows_with((31, 119, 180))) > 100  # the curves, pictures inside the page
    bars = rows_with((186, 224, 255))  # the style sheet works: bars behind the numbers
    assert len(bars) > 20 and bars[0] < 400


def test_captions_and_names_are_escaped(tmp_path, result):
    out = tmp_path / "report.html"
    build_report(out, [], [("<b>VideoMamba</b>", result)])
    page = out.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; {{ 7 * 7 }}" in page
    assert "<b>VideoMamba" not in page and "queries <b>" not in page


def test_only_clips_beside_the_result_are_embedded(tmp_path, result):
    out = tmp_path / "report.html"
    build_report(out, [], [("VideoMamba", result)])
    assert base64.b64encode(b"secret").decode() not in out.read_text()
    assert out.read_text().count("<video") == 2  # among the examples and the best


def test_a_folder_stands_for_its_result_file(tmp_path, result):
    by_file = build_report(tmp_path / "a.html", [], [("VideoMamba", result)])
    assert build_report(tmp_path / "b.html", [], [("VideoMamba", result.parent)]) == by_file
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()


def test_a_result_without_reranking_and_direction(tmp_path, result):
    content = json.loads(result.read_text()) | {"mixed": None, "reranked": None, "direction": None}
    content |= {"examples": [], "best": [], "worst": []}
    result.write_text(json.dumps(content))
    table = build_report(tmp_path / "report.html", [], [("dual", result)])
    assert "re-ranked" not in table
    assert re.search(r"dual +dual encoder +81\.2 ", table)
    assert "direction" not in table and not re.search(" -$", table, re.MULTILINE)
    assert ">direction<" not in (tmp_path / "report.html").read_text()


def test_published_numbers_stand_beside_ours_where_there_are_some(tmp_path, result):
    out = tmp_path / "report.html"
    build_report(out, [], [("mine", result)])
    assert "VideoMamba-M" not in out.read_text()
    content = json.loads(result.read_text())
    content["data"]["test_set"] = "MSRVTT-1kA"
    result.write_text(json.dumps(content))
    build_report(out, [], [("mine", result)])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", out.read_text())
    place = cells.index("VideoMamba-M 25M")
    assert cells[place : place + 4] == ["VideoMamba-M 25M", "re-ranked, k=128", "35.6", "29.1"]
    assert 'href="https://arxiv.org/abs/2403.06977">arXiv 2403.06977</a>' in out.read_text()
    own = ["mine", "re-ranked, matching alone, k=128", "88.5", "81.2"]
    assert own in [cells[i : i + 4] for i in range(place)]


def test_without_a_result_the_page_is_about_the_runs(tmp_path, run):
    (run / "config.yaml").write_text("model: {}\n")
    table = build_report(tmp_path / "site/report.html", [("stage <2>", run)], [])
    page = (tmp_path / "site/report.html").read_text()
    assert "Training of stage &lt;2&gt;" in page and page.count("<svg") == 2
    assert "none was saved" in page and "checkpoint" in table


def test_a_clip_has_the_name_of_its_file_or_its_key(tmp_path, result):
    content = json.loads(result.read_text())
    content["examples"][0]["results"][0]["file"] = "holiday <1>.mp4"
    result.write_text(json.dumps(content))
    build_report(tmp_path / "report.html", [], [("mine", result)])
    page = (tmp_path / "report.html").read_text()
    names = re.findall(r'<span class="name">([^<]*)</span>', page)
    assert names[:3] == ["holiday &lt;1&gt;.mp4", "s/2", "s/3"]
