"""The command, from a run directory and shards with real H.264 clips to its result files."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.evaluation import contents
from vmm.evaluation.retrieval.command import main
from vmm.evaluation.retrieval.options import Options
from vmm.evaluation.retrieval.page import build_report
from vmm.evaluation.retrieval.results import RetrievalResult
from vmm.evaluation.retrieval.run import evaluate
from vmm.export.formats import export, load_parts
from vmm.models.video_text import VideoTextModel
from vmm.ops.similarity import MATCH_WEIGHT
from vmm.runs import build

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "brighter", "darker", *COLOURS]
BERT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
}


def load_result(path):
    """What stands in a result file that can be read."""
    RetrievalResult.read(path)
    return json.loads(path.read_text())


def mp4(colour, brighter):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for step in range(8):
            level = (step + 1) / 8 if brighter else (8 - step) / 8
            frame = np.full((32, 32, 3), np.array(COLOURS[colour]) * level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture
def shard(tmp_path):
    """Six clips in twins, of which the last is broken, and a sample without a clip."""
    path = tmp_path / "data" / "test-000000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for number, colour in enumerate(COLOURS):
            for brighter in (True, False):
                words = ["brighter", "darker"] if brighter else ["darker", "brighter"]
                key = f"{number}{words[0]}"
                broken = (colour, brighter) == ("blue", False)
                add(f"{key}.mp4", b"not a film" if broken else mp4(colour, brighter))
                add(f"{key}.txt", f"{colour} {words[0]}".encode())
                twin = {"reversed_caption": f"{colour} {words[1]}"}
                add(f"{key}.json", json.dumps(twin).encode())
        add("9.txt", b"red brighter")
    return path


@pytest.fixture
def run(tmp_path):
    """A run directory with an untrained model."""
    text = tmp_path / "bert"
    text.mkdir()
    (text / "config.json").write_text(json.dumps(BERT))
    (text / "vocab.txt").write_text("\n".join(WORDS))
    init_args = {
        "video_encoder": {
            "class_path": "vmm.models.videomamba.VideoMamba",
            "init_args": {
                "embed_dim": 32,
                "depth": 1,
                "num_frames": 4,
                "image_size": 32,
                "patch_size": 16,
            },
        },
        "text_encoder": {
            "class_path": "vmm.models.text_encoder.BertTextEncoder",
            "init_args": {
                "name": str(text),
                "fusion_layer": 1,
                "pretrained": False,
                "max_words": 8,
            },
        },
        "proj_dim": 8,
    }
    config = {"model": {"init_args": init_args}, "data": {"init_args": {}}}
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    model = build(config, VideoTextModel)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "last.ckpt")
    return folder


def call(run, shard, out, *options):
    return main(
        [
            f"--run={run}",
            f"--shards={shard}",
            f"--out={out}",
            "--num-workers=0",
            "--device=cpu",
            "--checkpoint=last",
            *options,
        ]
    )


@pytest.mark.smoke
def test_from_run_and_shards_to_json_table_and_picture(run, shard, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(run, shard, out, "--k=3") == 0
    text = (out / "retrieval.json").read_text()
    assert str(tmp_path) not in text
    result = load_result(out / "retrieval.json")
    assert result["data"]["clips"] == {
        "rule": "strict",
        "listed": 7,
        "readable": 5,
        "unreadable": 2,
        "problems": {"unreadable": 1, "missing": 1},  # the download that failed counts
        "lost": {},
    }
    assert result["data"]["files"] == ["test-000000.tar"]
    assert result["settings"] == {
        "frame_order": "forward",
        "num_frames": 4,
        "sampling": "random",
        "image_size": 32,
        "fit": "squash",
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "antialias": True,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "views": 1,
        "k": 3,
        "mixture": {"temperature": pytest.approx(0.07), "weight": MATCH_WEIGHT},
        "coverage": "strict",
        "ties": "expectation over random order",
        "precision": "float32",
        "decoder": "pyav",
        "batch_size": 32,
        "device": "cpu",
    }
    assert result["model"]["encoder"] == result["name"] == "VideoMamba"
    assert result["chance"]["t2v_recall_1"] == pytest.approx(100 / 7)
    assert result["direction"]["pairs"] == 5
    assert {*contents.KINDS[:3], "match"} <= result["direction"].keys()
    for scores in contents.KINDS:
        assert result[scores]["t2v_recall_10"] == pytest.approx(500 / 7)  # two are missed
        low, high = result["interval"][scores]["t2v_recall_1"]
        assert low <= result[scores]["t2v_recall_1"] <= high
    assert len(result["examples"]) == 7
    pictures = {"retrieval.png", "best.png", "worst.png", "similarity.png"}
    assert {p.name for p in out.iterdir()} == {
        "retrieval.json", "report.html", "clips", *pictures,
    }  # fmt: skip
    codes = [finding["code"] for finding in result["findings"]]
    assert codes == ["tied-scores", "unreadable-videos", "duplicate-captions"]
    Image.open(out / "retrieval.png").verify()
    table = capsys.readouterr().out
    assert "7 captions, 7 clips (2 unreadable" in table
    assert "re-ranked" in table

    page = tmp_path / "report.html"
    build_report(page, [], [("VideoMamba", out)])
    shown = [result[kind] for kind in ("examples", "best", "worst")]
    clips = sum(len(example["results"]) for group in shown for example in group)
    assert clips > 21  # seven captions, three clips each, and the best and worst
    assert page.read_text().count("data:video/mp4;base64,") == clips
    assert page.read_text() == (out / "report.html").read_text()


@pytest.mark.slow
def test_names_and_texts_that_are_no_clean_unicode_lose_no_result(run, shard, tmp_path, root):
    odd = tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"tests \xe9 \x1b[2J.tar")
    odd.parent.mkdir()
    with tarfile.open(shard) as old, tarfile.open(odd, "w") as new:
        for number, member in enumerate(old):
            data = old.extractfile(member).read()
            if member.name.endswith(".txt") and number < 6:
                data = data + b" \xed\xa0\xbd"
            member.name = os.fsdecode(b"caf\xe9 " + member.name.encode())
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "eval.retrieval", "--run", str(run), "--device", "cpu"]
    done = subprocess.run(
        [*command, "--shards", str(odd), "--out", str(out), "--num-workers", "1"],
        cwd=root,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert b"\x1b" not in done.stdout and b"text-to-video" in done.stdout
    result = load_result(out / "retrieval.json")
    assert result["data"]["files"] == [odd.name]  # JSON loses nothing
    page = (out / "report.html").read_text(encoding="utf-8")
    assert r"tests \xe9 \x1b[2J.tar" in page
    assert any("\ufffd" in example["caption"] for example in result["examples"])


@pytest.mark.slow
def test_reversing_the_frames_changes_the_numbers_and_only_the_video(run, shard, tmp_path):
    names = ("forward", "again", "reversed")
    for name in names:
        order = "reversed" if name == "reversed" else "forward"
        assert call(run, shard, tmp_path / name, "--no-rerank", f"--frame-order={order}") == 0
    forward, again, backward = (load_result(tmp_path / n / "retrieval.json") for n in names)
    scores = [
        [found["score"] for e in result["examples"] for found in e["results"]]
        for result in (forward, again, backward)
    ]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]
    assert forward["reranked"] is None
    assert backward["settings"]["frame_order"] == "reversed"


def test_the_number_of_frames_can_be_changed(run, shard, tmp_path):
    assert call(run, shard, tmp_path / "out", "--no-rerank", "--num-frames=8") == 0
    result = load_result(tmp_path / "out" / "retrieval.json")
    assert result["settings"]["num_frames"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard": "nowhere/test-*.tar"}, "nowhere"),
        ({"shard": "$VMM_NO_SUCH_VARIABLE/test.tar"}, "VMM_NO_SUCH_VARIABLE"),
        ({"run": "no/run"}, "not a run directory"),
        ({"options": ["--checkpoint=gone.ckpt"]}, r"no checkpoint file gone\.ckpt"),
    ],
)
def test_a_mistake_is_one_clear_line(run, shard, tmp_path, capsys, change, message):
    status = call(
        change.get("run", run),
        change.get("shard", shard),
        tmp_path / "out",
        *change.get("options", []),
    )
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("vmm eval retrieval: error: ")
    assert message.replace("\\", "") in error


def test_a_killed_evaluation_goes_on(run, shard, tmp_path, monkeypatch, caplog):
    from vmm.evaluation.retrieval import run as module

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "lint", killed)
        assert call(run, shard, tmp_path / "out") == 130
    assert list((tmp_path / "out" / "features").iterdir())
    caplog.set_level("INFO")
    assert call(run, shard, tmp_path / "out") == 0
    assert "7 of 7 clips were encoded before; going on" in caplog.text
    assert not (tmp_path / "out" / "features").exists()
    # The same model on shards that have changed starts anew.
    with monkeypatch.context() as patch:
        patch.setattr(module, "lint", killed)
        assert call(run, shard, tmp_path / "out") == 130
    shard.touch()
    caplog.clear()
    assert call(run, shard, tmp_path / "out") == 0
    assert "were encoded before" not in caplog.text


@pytest.fixture
def official(shard, tmp_path):
    """The clips of the shard as files, with annotations of the VindLU kind."""
    folder = tmp_path / "vidéos"
    folder.mkdir()
    items = []
    with tarfile.open(shard) as tar:
        for member in tar.getmembers():
            if member.name.endswith(".mp4"):
                name = f"filmé {member.name}"
                (folder / name).write_bytes(tar.extractfile(member).read())
                text = tar.extractfile(member.name.replace("mp4", "txt")).read().decode()
                items.append({"video": name, "caption": [text, f"a {text} thing"]})
    items.append({"video": "gone.mp4", "caption": "red brighter"})
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return path, folder


def annotated(run, annotations, media, out, *options):
    return main(
        [
            *(f"--run={run}", "--dataset=captions", f"--annotations={annotations}"),
            *(f"--media={media}", f"--out={out}", "--num-workers=0", "--device=cpu"),
            *("--checkpoint=last", *options),
        ]
    )


@pytest.mark.slow
def test_official_annotations_with_a_folder_and_with_shards(run, official, shard, tmp_path, capsys):
    path, folder = official
    assert annotated(run, path, folder, tmp_path / "a", "--k=3", "--dsl") == 0
    output = capsys.readouterr().out
    assert "13 captions, 7 clips (2 unreadable, counted as misses)" in output
    assert "dual encoder +dsl" in output
    result = load_result(tmp_path / "a" / "retrieval.json")
    assert result["data"]["clips"]["problems"] == {"unreadable": 1, "missing": 1}
    assert result["data"]["captions_per_video"] == [1, 2]
    assert result["data"]["test_set"] == "captions"
    assert annotated(run, path, folder, tmp_path / "b", "--k=3", "--coverage=available") == 0
    dropped = load_result(tmp_path / "b" / "retrieval.json")
    assert dropped["data"]["videos"] == 5 and dropped["data"]["captions"] == 10
    assert "unreadable, left out" in capsys.readouterr().out
    # The same clips out of shards score the same.
    items = json.loads(path.read_text(encoding="utf-8"))
    for item in items:
        item["video"] = item["video"].removeprefix("filmé ")
    path.write_text(json.dumps(items), encoding="utf-8")
    assert annotated(run, path, shard, tmp_path / "c", "--k=3", "--coverage=available") == 0
    again = load_result(tmp_path / "c" / "retrieval.json")
    assert again["queries"] == dropped["queries"]


def test_a_training_video_is_said_before_anything_is_scored(run, official, tmp_path, caplog):
    path, folder = official
    seen = tmp_path / "train.txt"
    seen.write_text("filmé 0brighter\n", encoding="utf-8")
    options = ("--no-rerank", f"--train-ids={seen}")
    assert annotated(run, path, folder, tmp_path / "out", *options) == 0
    assert caplog.text.index("training-videos: 1 of 7") < caplog.text.index("cannot use")
    result = load_result(tmp_path / "out" / "retrieval.json")
    codes = [finding["code"] for finding in result["findings"]]
    assert codes[0] == "training-videos" and "unreadable-videos" in codes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"media": "nowhere"}, "nowhere"),
        ({"twice": True}, "is in the split 'test' and in 'train'"),
        ({"annotations": "gone.json"}, "gone.json is not a file"),
        ({"options": ["--train-ids=gone.txt"]}, "gone.txt is not a file"),
    ],
)
def test_a_missing_file_is_one_clear_line(run, official, tmp_path, capsys, change, message):
    path, folder = official
    if "twice" in change:  # as images of one name in two splits
        entry = {"split": "test", "filename": "filmé 0brighter.mp4", "sentences": [{"raw": "a"}]}
        path.write_text(json.dumps({"images": [entry, entry | {"split": "train"}]}))
        change = change | {"options": ["--dataset=flickr30k"]}
    status = annotated(
        run,
        change.get("annotations", path),
        change.get("media", folder),
        tmp_path / "out",
        *change.get("options", []),
    )
    assert status == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_two_processes_share_the_work(run, shard, tmp_path, root):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert call(run, shard, alone, "--k=3") == 0
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"),
        *("-m", "--", "eval.retrieval", f"--run={run}", f"--shards={shard}", f"--out={together}"),
        *("--num-workers=0", "--device=cpu", "--checkpoint=last", "--k=3", "--batch-size=2"),
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("text-to-video") == 1  # one process speaks
    one, two = (load_result(folder / "retrieval.json") for folder in (alone, together))
    assert one["queries"] == two["queries"] and one["direction"] == two["direction"]


@pytest.mark.slow
def test_an_exported_folder_scores_as_its_run(run, shard, tmp_path):
    export(load_parts(run, "last", "mit", []), tmp_path / "folder", "folder")
    assert call(run, shard, tmp_path / "a", "--k=3") == 0
    options = (f"--model=vmm:{tmp_path / 'folder'}", f"--shards={shard}", "--device=cpu")
    assert main([*options, f"--out={tmp_path / 'b'}", "--k=3", "--num-workers=0"]) == 0
    a, b = (load_result(tmp_path / name / "retrieval.json") for name in "ab")
    assert a["queries"] == b["queries"] and a["settings"] == b["settings"]
    assert b["model"]["parameters"] == a["model"]["parameters"]
    assert b["model"]["checkpoint"] == "folder"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_features_that_are_used(run, shard, tmp_path, root, caplog):
    """SIGKILL while the captions are encoded, as a full machine does it."""
    code = (
        "import os, signal, sys; from eval import retrieval; "
        "from vmm.evaluation.retrieval import scoring; "
        "scoring.encode_captions = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "sys.exit(retrieval.main())"
    )
    options = (f"--run={run}", f"--shards={shard}", f"--out={tmp_path / 'out'}", "--device=cpu")
    words = [sys.executable, "-c", code, *options, "--checkpoint=last", "--num-workers=0"]
    done = subprocess.run(words, cwd=root, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "retrieval.json").exists()
    caplog.set_level("INFO")
    assert call(run, shard, tmp_path / "out") == 0
    assert "7 of 7 clips were encoded before; going on" in caplog.text
    assert call(run, shard, tmp_path / "whole") == 0
    a, b = (load_result(tmp_path / name / "retrieval.json") for name in ("out", "whole"))
    assert a["queries"] == b["queries"]


def test_a_model_of_one_s_own_is_evaluated_from_python(toys, tmp_path):
    for colour in COLOURS:
        (tmp_path / f"{colour}.mp4").write_bytes(mp4(colour, brighter=True))
    items = [{"video": f"{colour}.mp4", "caption": f"something {colour}"} for colour in COLOURS]
    (tmp_path / "mine.json").write_text(json.dumps(items))
    options = Options(
        model=toys.Colours(),
        dataset="captions",
        annotations=tmp_path / "mine.json",
        media=str(tmp_path),
        out=tmp_path / "out",
    )
    result = evaluate(options)
    assert result.scores["dual"]["recall_mean"] == 100 and result.scores["reranked"] is None
    assert result.name == "colours" and result.model == options.model.identity()
    assert result.command == "vmm.evaluation.retrieval.run.evaluate(...)"
    assert result.data["split_hash"] == "e134b7e9c4c94431"  # of published results: never moves
    assert RetrievalResult.read(tmp_path / "out") == result


def test_captions_that_the_text_encoder_cuts_are_told(run, shard, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["init_args"]["text_encoder"]["init_args"]["max_words"] = 3
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert call(run, shard, tmp_path / "out", "--no-rerank") == 0
    found = {f["code"]: f for f in load_result(tmp_path / "out" / "retrieval.json")["findings"]}
    said = found["cut-captions"]
    assert "7 of 7 captions (100.0%) are cut to max_words 3, after which 6" in said["message"]
    assert "R@1 is too low" in said["effect"]
