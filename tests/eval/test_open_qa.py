import json

import pytest
import torch
import yaml

from eval import open_qa
from eval.answering import OpenQuestion, Reply, ask, judge, lint_questions, measure
from eval.qa.journal import Journal
from vmm.data.shards import EvaluationSample
from vmm.export.run import build_answer_model
from vmm.models.answer import AnswerList, Ranking
from vmm.models.text_encoder import VisionKV
from vmm.types import TextTokens

LIST = ["yes", "no", "a T-shirt", "man"]


def question(number, video, kind, *answers):
    return OpenQuestion(str(number), video, "what is it", list(answers), kind)


def reply(best, blank, *others):
    return Reply([best, *others], [-1.0] * (1 + len(others)), blank)


QUESTIONS = [
    question(0, 0, "b", "yes"),
    question(1, 0, "b", "no"),
    question(2, 1, "b", "yes"),
    question(3, 1, "o", "t shirt", "a t shirt."),
    question(4, 2, "o", "boat"),
]
REPLIES = [reply(0, 0), reply(0, 0, 1), reply(1, 0), reply(2, 3), None]


def test_answers_are_compared_by_their_words():
    judged = judge(QUESTIONS, REPLIES, LIST)
    assert judged.model.tolist() == [1, 0, 0, 1, 0]
    assert judged.top.tolist() == [1, 1, 0, 1, 0]
    assert judged.blank.tolist() == [1, 0, 1, 0, 0]
    assert judged.frequent.tolist() == [1, 0, 1, 1, 0]  # "yes" and, first of equals, "a t shirt"


def test_numbers_by_kind_and_against_the_better_control():
    numbers = measure(QUESTIONS, judge(QUESTIONS, REPLIES, LIST))
    assert numbers["accuracy"]["value"] == pytest.approx(40)
    assert numbers["control"] == "frequent"
    assert numbers["gain"]["value"] == pytest.approx(-20)
    assert numbers["by_kind"]["b"]["questions"] == 3
    assert numbers["by_kind"]["b"]["accuracy"]["value"] == pytest.approx(100 / 3)
    assert numbers["by_kind"]["o"]["blank"]["value"] == 0


def answer_list(texts, ids):
    ids = torch.tensor(ids)
    return AnswerList(texts, TextTokens(ids, torch.ones_like(ids)))


def test_findings():
    judged = judge(QUESTIONS, REPLIES, LIST)
    numbers = measure(QUESTIONS, judged)
    different = answer_list(LIST, [[1], [2], [3], [4]])
    found = {f.code: f for f in lint_questions("msvd-qa", QUESTIONS, different, numbers)}
    assert set(found) == {"answer-list", "size", "no-help"}
    assert "above 80.0 %" in found["answer-list"].effect
    alike = answer_list([*LIST, "boat"], [[1], [2], [3], [4], [4]])
    found = {f.code for f in lint_questions(None, QUESTIONS, alike, numbers)}
    assert found == {"equal-answers", "no-help"}
    right = [Reply([i], [0.0], 3) for i in (0, 1, 0, 2)]
    better = measure(QUESTIONS[:4], judge(QUESTIONS[:4], right, LIST))
    better["gain"]["interval"] = (1.0, 2.0)
    assert lint_questions(None, QUESTIONS[:4], different, better) == []


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
    state = {f"model.{k}": v for k, v in build_answer_model(config).state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def run(capsys, *arguments):
    status = open_qa.main([*map(str, arguments), "--num-workers", "0", "--device", "cpu"])
    return status, capsys.readouterr()


def test_the_demo_s_shards_from_a_killed_run_on(trained, demo_shards, monkeypatch, capsys):
    arguments = ["--run", trained, "--shards", f"{demo_shards.folder}/test-*.tar"]
    add, kept = open_qa.Journal.add, []

    def dies(self, number, entry):
        if len(kept) == 5:
            raise KeyboardInterrupt
        kept.append(number)
        add(self, number, entry)

    monkeypatch.setattr(open_qa.Journal, "add", dies)
    assert run(capsys, *arguments)[0] == 130
    asked = []
    monkeypatch.setattr(
        open_qa.Journal, "add", lambda self, n, e: asked.append(n) or add(self, n, e)
    )
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
    import tarfile

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
    assert set(result["numbers"]["by_kind"]) == {"what", "who", "how"}
    assert [r["said"] is None for r in result["replies"]] == [False] * 4 + [True] * 2
    status, said = run(capsys, *arguments, "--coverage", "available")
    result = json.loads((trained / "open_qa_msvd-qa" / "open_qa.json").read_text())
    assert status == 0 and result["data"]["questions"] == 4
    one = tmp_path / "one.json"
    one.write_text("[]")
    status, said = run(capsys, *arguments, "--answers", one)
    assert status == 2 and "list of answers is empty" in said.err


class Lamp(torch.nn.Module):
    """Answers 1 where it sees light, 0 in the dark."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.text_encoder = self

    def tokenize(self, texts, device):
        return texts

    def see(self, video):
        return VisionKV((video.abs().mean().view(1, 1),), ())

    def read(self, tokens, vision):
        return vision.keys[0][:, 0]

    def rank(self, light, answers, k):
        return [Ranking((x > 0).long().view(1), torch.zeros(1), 1) for x in light]


def test_every_question_is_also_asked_about_a_blank_video(tmp_path):
    films = [EvaluationSample(f"{n}", n, torch.ones(2, 3, 4, 4), [], {}, None) for n in range(3)]
    journal = Journal(tmp_path, {})
    replies, problems = ask(Lamp(), None, films, QUESTIONS, journal, 1, 0)
    assert [(r.answers, r.blank) for r in replies] == [([1], 0)] * 5 and not problems
