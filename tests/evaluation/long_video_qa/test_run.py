"""The command, from a question file and a folder of real videos to its result files."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from eval.long_video_qa import main
from vmm.evaluation.common.options import ModelOptions
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.long_video_qa.results import QaResult


def load_qa(path):
    """What stands in a result file that can be read."""
    QaResult.read(path)
    return json.loads(path.read_text())


@pytest.fixture
def encoder(toys, monkeypatch):
    """Stands in for the model of the run."""
    toy = toys.Encoder()
    monkeypatch.setattr(ModelOptions, "open_encoder", lambda options: toy)
    return toy


@pytest.fixture
def ask(toys, encoder, tmp_path):
    path = toys.write(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()  # nothing else is looked at: the encoder is a toy

    def ask(*options, dataset="questions", annotations=path):
        return main([
            "--run", str(run), "--dataset", dataset, "--annotations", str(annotations),
            "--media", str(tmp_path / "videos"), "--out", str(tmp_path / "out"),
            "--device", "cpu", *options,
        ])  # fmt: skip

    return ask


def test_results_table_and_page(ask, encoder, tmp_path, capsys):
    assert ask("--num-frames", "4") == 0
    result = load_qa(tmp_path / "out" / "qa.json")
    # The matching head knows the first frame; the cosine sees it twice as often as others.
    assert result["headline"] == "mixture"
    assert {m: row["accuracy"] for m, row in result["accuracy"].items()} == {
        "similarity": 100, "matching": 100, "mixture": 100,
    }  # fmt: skip
    for control in ("blind", "blank", "chance", "majority"):
        assert result["controls"][control]["accuracy"] == pytest.approx(25), control
    assert 25 <= result["controls"]["shuffled"]["accuracy"] < 100
    assert result["verdict"].startswith("The video helps")
    assert result["data"]["videos"] == {
        "listed": 12,
        "readable": 12,
        "unreadable": 0,
        "problems": {},
    }
    assert result["questions"][3]["key"] == "ü3" and result["questions"][3]["chosen"] == 3
    output = capsys.readouterr().out
    assert "mixture, 0.7 matching + 0.3 similarity" in output and result["verdict"] in output
    assert "blind: question and option alone" in output and "under 1 minute" in output
    pictures = sorted((tmp_path / "out" / "timelines").glob("*.svg"))
    assert len(pictures) == 12 and "✓ white" in pictures[3].read_text()
    assert not (tmp_path / "out" / "submission.csv").exists()
    assert not list((tmp_path / "out" / "scores").iterdir())  # finished: nothing to go on with
    assert encoder.calls == 36


def test_windows_and_dropped_videos(ask, encoder, tmp_path, caplog):
    (tmp_path / "videos" / "é 2.mp4").write_bytes(b"broken")
    assert ask("--fps", "1", "--window", "2", "--aggregate", "lse") == 0
    strict = load_qa(tmp_path / "out" / "qa.json")
    assert "unreadable" in caplog.text and "ü2" in caplog.text
    assert strict["accuracy"]["mixture"]["accuracy"] <= 100 * 11 / 12
    assert strict["questions"][2]["problem"] == "unreadable"
    assert strict["data"]["videos"]["problems"] == {"unreadable": 1}
    assert "unreadable-videos" in [finding["code"] for finding in strict["findings"]]
    assert ask("--fps", "1", "--window", "2", "--coverage", "available") == 0
    dropped = load_qa(tmp_path / "out" / "qa.json")
    assert dropped["data"]["measured"] == 11
    assert dropped["settings"]["window"] == 2 and dropped["settings"]["fps"] == 1


def test_no_film_of_a_folder_is_read_whole(ask, encoder, tmp_path, monkeypatch):
    """One may be larger than the memory; a hash of its content orders the shuffled frames."""
    assert ask("--fps", "1") == 0
    expected = load_qa(tmp_path / "out" / "qa.json")

    def refuse(path):
        raise AssertionError(f"{path} is read whole")

    read = Path.read_bytes
    whole = lambda path: (refuse if path.suffix == ".mp4" else read)(path)  # noqa: E731
    monkeypatch.setattr(Path, "read_bytes", whole)
    assert ask("--fps", "1") == 0
    assert load_qa(tmp_path / "out" / "qa.json")["questions"] == expected["questions"]


def test_a_film_that_goes_away_is_unreadable(ask, encoder, tmp_path, monkeypatch, caplog):
    found = AnnotatedClips.film

    def gone(clips, index):
        path = found(clips, index)
        if index == 2:
            path.unlink(missing_ok=True)
        return path

    monkeypatch.setattr(AnnotatedClips, "film", gone)
    assert ask("--num-frames", "4") == 0
    result = load_qa(tmp_path / "out" / "qa.json")
    assert result["data"]["videos"]["problems"] == {"unreadable": 1}
    assert "No such file" in caplog.text


def test_an_evaluation_that_was_killed_goes_on(ask, encoder, toys, tmp_path, monkeypatch):
    whole = toys.Encoder.encode_videos

    def killed(self, video):
        if self.calls == 20:
            raise KeyboardInterrupt
        return whole(self, video)

    monkeypatch.setattr(toys.Encoder, "encode_videos", killed)
    assert ask() == 130
    monkeypatch.setattr(toys.Encoder, "encode_videos", whole)
    assert ask() == 0 and encoder.calls == 20 + 36 - 18
    resumed = (tmp_path / "out" / "qa.json").read_bytes()
    assert ask() == 0 and (tmp_path / "out" / "qa.json").read_bytes() == resumed


def test_hidden_answers_give_a_file_to_submit(ask, toys, tmp_path, capsys):
    names = {f"option {i}": name for i, name in enumerate([*toys.NAMES, "black"])}
    records = [{"q_uid": f"é {i}", "question": "what comes first ?", **names} for i in range(12)]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(records))
    assert ask("--prompt", "option", dataset="egoschema", annotations=path) == 0
    assert "no answer is public here" in capsys.readouterr().out
    with (tmp_path / "out" / "submission.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["q_uid", "answer"]
    assert rows[1:] == [[f"é {i}", str(i % 4)] for i in range(12)]
    assert load_qa(tmp_path / "out" / "qa.json")["accuracy"] is None
    (tmp_path / "subset_answers.json").write_text(json.dumps({"é 1": 1, "é 2": 0}))
    assert ask("--prompt", "option", dataset="egoschema", annotations=path) == 0
    result = load_qa(tmp_path / "out" / "qa.json")
    assert result["data"]["hidden"] == 10 and result["data"]["measured"] == 2
    assert result["accuracy"]["mixture"]["accuracy"] == 50
    assert "other-questions" in {finding["code"] for finding in result["findings"]}


def test_every_official_question_is_in_the_file_to_submit(ask, toys, tmp_path, caplog):
    """Also those whose options are all the same, and those whose video is missing."""
    names = {f"option {i}": name for i, name in enumerate([*toys.NAMES, "black"])}
    same = {f"option {i}": "red" for i in range(5)}
    records = [{"q_uid": f"é {i}", "question": "what comes first ?", **names} for i in range(12)]
    records += [{"q_uid": "é 12", "question": "?", **same}]
    records += [{"q_uid": f"gone {i}", "question": "?", **names} for i in range(30)]
    shutil.copy(tmp_path / "videos" / "é 0.mp4", tmp_path / "videos" / "é 12.mp4")
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(records))
    assert ask("--prompt", "option", dataset="egoschema", annotations=path) == 0
    with (tmp_path / "out" / "submission.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == [record["q_uid"] for record in records]
    assert all(answer in "01234" for _, answer in rows)
    assert sum("gone" in record.message for record in caplog.records) < 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--num-frames", "4", "--fps", "1"], "give either --num-frames or --fps"),
        (["--annotations", "/nowhere.json"], "is not a file; give an annotation file"),
        (["--media", "/nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_clear_messages(ask, options, said, capsys):
    assert ask(*options) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m eval.long_video_qa: error: ") and said in error


def test_no_video_at_all_is_an_error(ask, tmp_path, capsys):
    for path in (tmp_path / "videos").iterdir():
        path.write_bytes(b"broken")
    assert ask() == 2
    assert "not one of 12 videos could be read (unreadable)" in capsys.readouterr().err


def test_broken_weights_are_an_error(ask, encoder, capsys):
    encoder.broken = True
    assert ask() == 2 and "hold NaN or infinity" in capsys.readouterr().err
