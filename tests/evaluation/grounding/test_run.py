"""The command, from annotations and a folder of real videos to its result files."""

import json

import pytest

from eval.grounding import main
from tests.browser import Browser
from tests.data.conftest import camera_clips
from vmm.evaluation.common.options import ModelOptions
from vmm.evaluation.grounding import page, training
from vmm.evaluation.grounding.results import GroundingResult


def load(folder):
    """What stands in a result file that can be read."""
    GroundingResult.read(folder)
    return json.loads((folder / "grounding.json").read_text())


def value(result, method, metric="R1@0.5"):
    return result["metrics"][method][metric]["value"]


@pytest.fixture
def encoder(toys, monkeypatch):
    """Stands in for the model of the run."""
    toy = toys.Encoder()
    monkeypatch.setattr(ModelOptions, "open_encoder", lambda options: toy)
    monkeypatch.setattr(training, "STEPS", 20)
    monkeypatch.setattr(page, "_SHOWN", 1)
    return toy


@pytest.fixture
def find(toys, encoder, tmp_path):
    path = toys.write(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()  # nothing else is looked at: the encoder is a toy

    def find(*options, annotations=path, dataset="moments"):
        return main([
            "--run", str(run), "--dataset", dataset, "--annotations", str(annotations),
            "--media", str(tmp_path / "test videos"), "--out", str(tmp_path / "out"),
            "--device", "cpu", *map(str, options),
        ])  # fmt: skip

    return find


def test_results_table_page_and_submission(find, tmp_path, capsys):
    assert find() == 0
    result = load(tmp_path / "out")
    assert result["headline"] == "curve" and value(result, "curve") == 100
    assert value(result, "curve", "mAP") == 100 and value(result, "curve", "mIoU") == 100
    assert value(result, "shuffled") < 60 and value(result, "whole") < 40
    assert result["data"]["videos"]["readable"] == 4 and result["data"]["measured"] == 13
    assert list(result["by_length"]) == ["short"] and result["gain"] is None
    first = result["queries"][1]
    assert first["text"] == "something green" and first["windows"][0][:2] == [1, 3]
    assert first["iou"] == 1 and first["moments"] == [[1, 3]]
    output = capsys.readouterr().out
    assert "relevance curve" in output and result["verdict"] in output
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "IoU 1.00: something red" in shown and shown.count("data:image/png") == 2
    assert "where training moments lie" not in shown and "sentences&#39; hash" in shown
    lines = (tmp_path / "out" / "submission.jsonl").read_text().splitlines()
    sent = json.loads(lines[1])
    assert sent["qid"] == "test0_green" and sent["pred_relevant_windows"][0][:2] == [1, 3]
    assert len(sent["pred_saliency_scores"]) == 2 and len(lines) == 13
    assert not list((tmp_path / "out" / "scores").iterdir())  # finished: nothing to go on with


def test_a_head_is_trained_once_and_used_again(find, toys, encoder, tmp_path, capsys):
    train = toys.write(tmp_path, "train", [("red", "red", "blue", "green"), ("white", "blue")] * 3)
    media = ("--train-annotations", train, "--train-media", tmp_path / "train videos")
    head = ("--head", tmp_path / "heads" / "toy")
    assert find(*head) == 2
    assert "no head in" in capsys.readouterr().err
    assert find(*head, *media) == 0
    result = load(tmp_path / "out")
    assert result["headline"] == "head" and set(result["lead"]) == {
        "shuffled", "centre", "whole", "prior",
    }  # fmt: skip
    assert result["gain"]["value"] == value(result, "head") - value(result, "curve")
    assert result["settings"]["head"]["sentences"] == 15 and "trained head" in result["verdict"]
    assert sorted(p.name for p in (tmp_path / "heads" / "toy").iterdir()) == [
        "head.json", "head.safetensors",
    ]  # fmt: skip
    calls = encoder.calls
    assert find(*head) == 0  # of what was trained nothing is read
    again = load(tmp_path / "out")
    assert encoder.calls == calls + 8 and again["queries"] == result["queries"]
    assert again["settings"]["head"] == result["settings"]["head"]
    assert find(*head, "--fps", "2") == 2
    assert "was trained on other frames or windows" in capsys.readouterr().err
    encoder.identity = lambda: {**toys.Encoder().identity(), "sha256": "11" * 32}
    assert find(*head) == 2
    assert "was trained on another model" in capsys.readouterr().err
    assert find("--head", tmp_path) == 2
    assert "holds something else" in capsys.readouterr().err


def test_unreadable_videos_are_misses_or_dropped(find, tmp_path, caplog):
    (tmp_path / "test videos" / "test é1.mp4").write_bytes(b"broken")
    (tmp_path / "test videos" / "test é3.mp4").unlink()
    assert find() == 0
    strict = load(tmp_path / "out")
    assert value(strict, "curve") == pytest.approx(100 * 7 / 13)
    assert strict["queries"][4]["problem"] == "unreadable"
    assert strict["data"]["videos"]["problems"] == {"unreadable": 1, "missing": 1}
    assert "unreadable-videos" in [finding["code"] for finding in strict["findings"]]
    assert "test1_blue" in caplog.text
    assert find("--coverage", "available") == 0
    dropped = load(tmp_path / "out")
    assert dropped["data"]["measured"] == 7 and value(dropped, "curve") == 100
    sent = (tmp_path / "out" / "submission.jsonl").read_text().splitlines()
    assert json.loads(sent[4])["pred_relevant_windows"] == [[0, 0, 0]]


def test_an_evaluation_that_was_killed_goes_on(find, encoder, toys, tmp_path, monkeypatch):
    whole = toys.Encoder.encode_videos

    def killed(self, video):
        if self.calls == 4:
            raise KeyboardInterrupt
        return whole(self, video)

    monkeypatch.setattr(toys.Encoder, "encode_videos", killed)
    assert find() == 130
    monkeypatch.setattr(toys.Encoder, "encode_videos", whole)
    calls = encoder.calls
    assert find() == 0 and encoder.calls == calls + 4  # two of four videos, both views
    assert value(load(tmp_path / "out"), "curve") == 100


def test_moments_that_are_not_public_give_a_submission(find, toys, tmp_path, capsys):
    records = [{**record, "relevant_windows": []} for record in toys.records()]
    hidden = tmp_path / "hidden-moments.jsonl"
    hidden.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert find(annotations=hidden) == 0
    result = load(tmp_path / "out")
    assert result["metrics"] is None and result["data"]["hidden"] == 13
    assert "no moment is public here" in capsys.readouterr().out
    assert "nothing to measure" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "submission.jsonl").is_file()


def test_videos_of_both_splits_and_a_model_without_moments(find, encoder, toys, tmp_path, capsys):
    path = tmp_path / "test-moments.jsonl"
    assert find("--train-annotations", path) == 0
    result = load(tmp_path / "out")
    assert [finding["code"] for finding in result["findings"]] == ["videos-in-both-splits"]
    assert value(result, "prior") > 0 and "prior" in result["lead"]
    encoder.apart = False
    assert find() == 2
    assert "give --window" in capsys.readouterr().err
    assert find("--window", "1") == 0
    assert value(load(tmp_path / "out"), "curve") == 100
    encoder.broken = True
    assert find("--window", "1", "--fps", "2") == 2
    assert "hold NaN or infinity" in capsys.readouterr().err


def test_a_browser_shows_the_page(find, toys, tmp_path, monkeypatch, look_at, chromium):
    records, media = toys.records(), tmp_path / "test videos"
    for name, path in camera_clips().items():
        (media / f"{name}.mp4").write_bytes(path.read_bytes())
        said = f"{name}_{'and_so_on_' * 20}with a red thing, " + "which is described at length " * 9
        records.append({"video": f"{name}.mp4", "query": said, "start": 0.4, "end": 2.6})
    records.append({"video": "missing.mp4", "query": "red", "start": 0, "end": 1})
    annotations = tmp_path / "camera-moments.jsonl"
    annotations.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(page, "_SHOWN", 8)
    train = ("--train-annotations", toys.write(tmp_path, "train"))
    train += ("--train-media", tmp_path / "train videos", "--head", tmp_path / "head")
    assert find("--fps", 4, *train, annotations=annotations) == 0
    report = tmp_path / "out" / "report.html"
    look_at(report)
    browser = Browser(chromium, tmp_path / "profile", 1280, 900)
    try:
        browser.call("Page.navigate", url=report.as_uri())
        browser.wait_for("document.querySelectorAll('table').length > 2")
        wide = "t => t.scrollWidth > t.parentElement.clientWidth"
        tables = f"[...document.querySelectorAll('table')].filter({wide}).length"
        assert browser.evaluate(tables) == 0, "numbers are out of sight on a wide screen"
        assert browser.evaluate("document.images.length") == min(8, 4 + len(camera_clips())) + 1
    finally:
        browser.close()
