"""The command, from a run directory and shards with real H.264 clips to its result files."""

import io
import json
import tarfile

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eval.report import build_report
from eval.results import load_result
from eval.retrieval import _portable, main
from vmm.export.run import build_model

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
    state = {f"model.{key}": value for key, value in build_model(config).state_dict().items()}
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


def test_from_run_and_shards_to_json_table_and_picture(run, shard, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(run, shard, out, "--k=3") == 0
    text = (out / "retrieval.json").read_text()
    assert str(tmp_path) not in text
    result = load_result(out / "retrieval.json")
    assert result["data"]["clips"] == {
        "listed": 6,
        "readable": 5,
        "unreadable": 1,
        "problems": {"unreadable": 1},
    }
    assert result["data"]["shards"] == ["test-000000.tar"]
    assert result["settings"] | {"batch_size": 32} == {
        "frame_order": "forward",
        "num_frames": 4,
        "image_size": 32,
        "k": 3,
        "batch_size": 32,
        "device": "cpu",
        "precision": "float32",
    }
    assert result["model"]["encoder"] == result["name"] == "VideoMamba"
    assert result["chance"]["t2v_recall_1"] == pytest.approx(100 / 6)
    assert result["direction"]["pairs"] == 5
    assert {"dual", "match"} <= result["direction"].keys()
    for scores in ("dual", "reranked"):
        assert result[scores]["t2v_recall_10"] == pytest.approx(500 / 6)  # the broken one is missed
        low, high = result["interval"][scores]["t2v_recall_1"]
        assert low <= result[scores]["t2v_recall_1"] <= high
    assert len(result["examples"]) == 6
    assert {p.name for p in out.iterdir()} == {"retrieval.json", "retrieval.png", "clips"}
    Image.open(out / "retrieval.png").verify()
    table = capsys.readouterr().out
    assert "6 captions, 6 clips (1 unreadable" in table
    assert "re-ranked" in table

    page = tmp_path / "report.html"
    build_report(page, [], [("tiny", out)])
    assert page.read_text().count("data:video/mp4;base64,") == 18  # six captions, three clips each


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
        ({"options": ["--k=0"]}, "k must be at least 1"),
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
    assert error.startswith("eval.retrieval: error: ")
    assert message.replace("\\", "") in error


def test_the_command_is_written_without_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _portable(f"--run={tmp_path}/runs/a") == "--run=runs/a"
    assert _portable(str(tmp_path / "x.tar")) == "x.tar"
    assert _portable("/somewhere/else/x.tar") == "x.tar"
    assert _portable("data/{000..009}.tar") == "data/{000..009}.tar"
    assert _portable("--no-rerank") == "--no-rerank"
