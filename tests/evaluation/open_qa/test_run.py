"""The command, from a trained model and questions to its result files."""

import json
import tarfile

import pytest
import torch
import yaml

from eval import open_qa
from vmm.evaluation.common.journal import Journal
from vmm.evaluation.open_qa.options import Options
from vmm.evaluation.open_qa.results import OpenQaResult
from vmm.evaluation.open_qa.run import evaluate
from vmm.models.answer import AnswerModel
from vmm.runs import build


@pytest.fixture
def trained(tmp_path, root, demo_shards):
    """A run directory with an untrained answer model."""
    args = {
        "video_encoder": {
            "class_path": "vmm.models.videomamba.VideoMamba",
            "init_args": {"embed_dim": 32, "depth": 1, "num_frames": 2, "image_size": 32},
        },
        "text_encoder": {
            "class_path": "vmm.models.text_encoder.BertTextEncoder",
            "init_args": {
                "name": str(root / "recipes/encoders/bert_demo"),
                "fusion_layer": 2,
                "pretrained": False,
            },
        },
        "answers": f"{demo_shards.folder}/answers.json",
    }
    config = {"model": {"init_args": args}, "data": {"init_args": {}}}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"model.{k}": v for k, v in build(config, AnswerModel).state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def run(capsys, *arguments):
    status = open_qa.main([*map(str, arguments), "--num-workers", "0", "--device", "cpu"])
    return status, capsys.readouterr()


def test_the_demo_s_shards_from_a_killed_run_on(trained, demo_shards, monkeypatch, capsys):
    arguments = ["--run", trained, "--shards", f"{demo_shards.folder}/test-*.tar"]
    add, kept = Journal.add, []

    def dies(self, number, entry):
        if len(kept) == 5:
            raise KeyboardInterrupt
        kept.append(number)
        add(self, number, entry)

    monkeypatch.setattr(Journal, "add", dies)
    assert run(capsys, *arguments)[0] == 130
    asked = []
    monkeypatch.setattr(Journal, "add", lambda self, n, e: asked.append(n) or add(self, n, e))
    status, said = run(capsys, *arguments)
    assert status == 0, said.err
    assert sorted(kept + asked) == list(range(16))
    out = trained / "open_qa_shards"
    result = json.loads((out / "open_qa.json").read_text())
    assert result["data"]["questions"] == 64 == len(result["replies"])
    assert set(result["numbers"]["by_kind"]) == {"colour", "event", "shape", "size"}
    assert result["numbers"]["by_kind"]["event"]["frequent"]["value"] < 100
    assert all(len(r["said"]) == 5 for r in result["replies"])
    text = (out / "open_qa.html").read_text()
    assert "not zero-shot" in text and "zero-shot" not in said.out
    assert not list((out / "replies").glob("*"))


def test_a_browser_shows_the_page(trained, demo_shards, capsys, look_at):
    shards = f"{demo_shards.folder}/test-*.tar"
    assert run(capsys, "--run", trained, "--shards", shards)[0] == 0
    look_at(trained / "open_qa_shards/open_qa.html")


def test_official_files_and_a_video_that_cannot_be_read(
    trained, demo_shards, tmp_path, capsys, monkeypatch
):
    media = tmp_path / "media"
    media.mkdir()
    with tarfile.open(next(demo_shards.folder.glob("test-*.tar"))) as tar:
        names = [m for m in tar.getmembers() if m.name.endswith(".mp4")][:2]
        for number, member in enumerate(names):
            (media / f"vid{number}.mp4").write_bytes(tar.extractfile(member).read())
    (media / "vid2.mp4").write_bytes(b"no film")
    rows = [
        {"id": n, "question": f"{word} is it?", "answer": "red", "video_id": n // 2}
        for n, word in enumerate(("what", "who", "what", "what", "what", "how"))
    ]
    file = tmp_path / "msvd_qa_test.json"
    file.write_text(json.dumps(rows))
    arguments = ["--run", trained, "--dataset", "msvd-qa", "--annotations", file, "--media", media]
    status, said = run(capsys, *arguments)
    assert status == 0, said.err
    result = json.loads((trained / "open_qa_msvd-qa" / "open_qa.json").read_text())
    assert result["data"]["questions"] == 6 and result["data"]["unreadable"] == 1
    assert result["findings"][0]["code"] == "unreadable-videos"
    assert "with 2 of 6 questions" in result["findings"][0]["message"]
    assert "33.3 points" in result["findings"][0]["effect"]
    assert result["data"]["split_hash"] == "f3cceca306acace9"  # of published results: never moves
    assert set(result["numbers"]["by_kind"]) == {"what", "who", "how"}
    assert [r["said"] is None for r in result["replies"]] == [False] * 4 + [True] * 2
    told = Options(run=trained, dataset="msvd-qa", annotations=file, media=str(media),
                   coverage="available")  # fmt: skip
    result = evaluate(told)
    assert result.data["questions"] == 4
    assert OpenQaResult.read(trained / "open_qa_msvd-qa") == result
    one = tmp_path / "one.json"
    one.write_text("[]")
    status, said = run(capsys, *arguments, "--answers", one)
    assert status == 2 and "list of answers is empty" in said.err
