import base64
import io
import json
import re
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from eval.report import main
from vmm.evaluation.common.pictures import png
from vmm.evaluation.retrieval.charts import (
    Curve,
    curves_picture,
    read_curves,
    recall_curves,
    similarity_map,
)
from vmm.evaluation.retrieval.page import build_report
from vmm.evaluation.retrieval.results import RetrievalResult


@pytest.fixture
def result(tmp_path, result_content):
    found = [
        {"key": "s/1", "score": 3.25, "rank": 1, "right": True, "clip": "clips/000.mp4"},
        {"key": "s/2", "score": 1.5, "rank": 2, "right": False, "clip": "../secret.txt"},
        {"key": "s/3", "score": 1.0, "rank": 3, "right": False, "clip": None},
    ]
    caption = "a <script>alert(1)</script> & {{ 7 * 7 }}"
    content = result_content()
    content["examples"] = [{"caption": caption, "rank": 1, "results": found}]
    content["best"] = [{"caption": "the clearest", "rank": 1, "results": found[:1]}]
    last = {"key": "s/4", "score": -1.0, "rank": 77, "right": True, "clip": None}
    content["worst"] = [{"caption": "the worst", "rank": 77, "results": [*found[1:], last]}]
    content["findings"] = [{"code": "tied-scores", "message": "2 queries <b>", "effect": "R@1 1"}]
    folder = tmp_path / "result"
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "000.mp4").write_bytes(b"moving picture")
    (tmp_path / "secret.txt").write_text("secret")
    path = folder / "retrieval.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = ["epoch,step,train/loss,train/vtc,val/t2v_recall_1,lr-AdamW"]
    lines += [f"0,{step},{3 - step / 100},{2 - step / 100},,0.1" for step in range(0, 100, 10)]
    lines += ["0,99,,,42.0,", "0,100,nan,1.0,,"]
    (folder / "metrics.csv").write_text("\n".join(lines))
    return folder


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
    assert len(pictures) == 3  # recall, ranks, training; the clips of this result are not there
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
    assert page.count('<img alt="Recall over the depth"') == 1
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
    content = json.loads(result.read_text()) | {"reranked": None, "direction": None}
    content |= {"examples": [], "best": [], "worst": []}
    result.write_text(json.dumps(content))
    table = build_report(tmp_path / "report.html", [], [("dual", result)])
    assert "re-ranked" not in table
    assert re.search(r"dual +dual encoder +81\.2 .* -$", table, re.MULTILINE)


def test_the_terminal_table_has_both_directions_and_chance(result):
    table = RetrievalResult.read(result).table()
    assert "256 captions, 256 clips (1 unreadable, counted as misses), 8 frames forward" in table
    assert re.search(r"text-to-video +dual encoder +81\.2 \(77\.0 to 85\.0\) +95\.0", table)
    assert re.search(r"video-to-text +dual encoder", table)
    assert table.count("re-ranked") == table.count("  chance") == 2
    assert "matching head 98.5 % (chance 50 %, 256 pairs)" in table
    assert "! tied-scores: 2 queries <b>" in table


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
    assert ["mine", "re-ranked", "88.5", "81.2"] in [cells[i : i + 4] for i in range(place)]


def test_the_card_says_what_was_dropped_and_recognised(result):
    content = RetrievalResult.read(result)
    content.settings.update({"coverage": "available", "k": None})
    content.data.update({"recognised": "MSRVTT full", "captions_per_video": [18, 20]})
    card = dict(content.card())
    assert card["test set"] == "shards (ids and number are those of MSRVTT full)"
    assert card["captions"] == "256; 18 to 20 per video"
    assert card["coverage"].startswith("available") and card["re-ranked"] == "no"


def test_recall_curves_rise_from_r1_to_everything(result):
    content = RetrievalResult.read(result)
    figure = recall_curves([("a", content)])
    line = figure.axes[0].lines[0]
    recalls = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert recalls[1] == pytest.approx(62.5) and recalls[3] == pytest.approx(75)
    assert recalls[10] == pytest.approx(87.5) and recalls[256] == 100
    content.queries["dual"]["v2t"]["better"] = "x"
    with pytest.raises(ValueError, match="holds no v2t ranks of dual"):
        content.ranks("dual", "v2t")


def test_the_similarity_map_has_the_right_pairs_on_its_diagonal():
    scores = torch.zeros(200, 100)
    owner = torch.arange(200) // 2
    scores[torch.arange(200), owner] = 1
    relevant = torch.zeros(200, 100, dtype=torch.bool)
    relevant[torch.arange(200), owner] = True
    scores[:, 0] = -torch.inf  # unreadable
    drawn = similarity_map(scores, relevant).axes[0].images[0].get_array()
    assert drawn.shape == (64, 64) and drawn.mask[:, 0].all()
    assert (drawn.diagonal()[1:] == 1).all() and drawn[1:, 1:].sum() == 63


def test_curves_are_read_by_name(run):
    curves = {curve.name: curve for curve in read_curves(run / "metrics.csv")}
    assert curves.keys() == {"train/loss", "train/vtc", "val/t2v_recall_1"}
    assert curves["train/loss"].steps == list(range(0, 100, 10))  # NaN is left out
    assert curves["val/t2v_recall_1"].values == [42.0]
    assert png(curves_picture(list(curves.values()))).startswith(b"\x89PNG")


def test_a_single_point_can_be_drawn():
    assert png(curves_picture([Curve("train/$loss", [0], [1.0])])).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "no result of this version"),
        ('{"schema": 1}', "no result of this version"),
        ('{"schema": 2}', "lacks best, chance, command"),
    ],
)
def test_a_bad_result_file_is_one_clear_line(tmp_path, capsys, content, message):
    path = tmp_path / "retrieval.json"
    if content is not None:
        path.write_text(content)
    assert main(["--out", str(tmp_path / "x.html"), "--result", f"a={path}"]) == 2
    assert message in capsys.readouterr().err


def test_bad_runs_and_arguments(tmp_path, capsys, result, run):
    out = ["--out", str(tmp_path / "x.html"), "--result", f"a={result}"]
    assert main([*out, "--run", f"r={tmp_path}"]) == 2
    assert "there is no" in capsys.readouterr().err
    (run / "metrics.csv").write_text("step,train/loss\n0,many\n")
    assert main([*out, "--run", f"r={run}"]) == 2
    assert "no number for train/loss" in capsys.readouterr().err
    (tmp_path / "steps.json").write_text('[{"name": "a"}]')
    assert main([*out, "--steps", str(tmp_path / "steps.json")]) == 2
    assert "KeyError('command')" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "x.html")]) == 2
    assert "at least one --result" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*out, "--run", "nameless"])
