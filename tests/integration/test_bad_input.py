"""A user's mistake costs one clear line, and nothing is left behind that looks like a run."""

import io
import json
import os
import tarfile

import pytest

from vmm.cli import main


@pytest.fixture
def fit(root, demo_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)

    def fit(stage, *options):
        code = main(
            [
                *("fit", "-c", f"recipes/{stage}.yaml", "-c", "recipes/overlays/debug.yaml"),
                *demo_shards.options(images="stage2" in stage),
                f"--trainer.logger.init_args.save_dir={tmp_path}",
                *options,
            ]
        )
        return code, capsys.readouterr().err

    return fit


@pytest.mark.parametrize(
    ("stage", "option", "said"),
    [
        ("stage2_vtt", "--data.init_args.train_videos=nowhere/{00..02}.tar", "nowhere/"),
        ("stage2_vtt", "--data.init_args.train_videos=$NO_SUCH_PLACE/x.tar", "NO_SUCH_PLACE"),
        ("stage2_vtt", "--data.init_args.num_frames=16", "data.num_frames is 16"),
        ("stage2_vtt", "--model.init_args.init_from=no/such/run", "no/such/run"),
        ("stage2_vtt", "--model.init_args.loss_weights.align=1", "there is no teacher"),
        (
            "stage2_vtt",
            "--model.init_args.text_encoder.init_args.name=no/such/bert",
            "no/such/bert",
        ),
        (
            "stage1_mvp",
            "--model.init_args.teacher.init_args.pretrained=no/teacher.pt",
            "no/teacher.pt",
        ),
    ],
)
def test_one_clear_line(fit, stage, option, said):
    code, message = fit(stage, option)
    lines = [line for line in message.splitlines() if line.startswith("vmm: error:")]
    assert code == 2
    assert len(lines) == 1 and said in message
    assert "Traceback" not in message


def test_broken_samples_are_counted_and_the_run_goes_on(fit, demo_shards, tmp_path):
    source = next(demo_shards.folder.glob("train-*.tar"))
    spoilt = tmp_path / "train-000000.tar"
    with tarfile.open(source) as old, tarfile.open(spoilt, "w") as new:
        for i, member in enumerate(old):
            content = old.extractfile(member).read()
            key, _, extension = member.name.rpartition(".")
            if i == 0 or ((i // 3) % 4 == 1 and extension == "mp4"):
                content = content[: len(content) // 3]  # every fourth clip is cut short
            if i // 3 == 2 and extension == "txt":
                continue
            if i // 3 == 2 and extension == "json":
                content = json.dumps({"key": key}).encode()  # no caption at all
            header = tarfile.TarInfo(member.name)
            header.size = len(content)
            new.addfile(header, io.BytesIO(content))
    record = tmp_path / "bad.jsonl"
    code, message = fit(
        "stage1_mvp",
        f"--data.init_args.train_videos={spoilt}",
        f"--data.init_args.quarantine={record}",
        "--data.init_args.steps_per_epoch=12",
    )
    assert code == 0
    assert message.count("1 no caption") == 1  # in the introduction
    reasons = [json.loads(line) for line in record.read_text().splitlines()]
    assert reasons and all({"shard", "key", "reason"} <= set(reason) for reason in reasons)


def test_texts_and_names_that_are_no_clean_unicode_are_trained_on(fit, demo_shards, tmp_path):
    odd = tmp_path / "ä 猫" / os.fsdecode(b"train \xe9.tar")  # a recipe can hold "*" for it
    odd.parent.mkdir()
    metadata = rb'{"caption": "blue \ud83d", "note": "\udc00"}'
    halves = (b"red \xed\xa0\xbd", "red \ufeff\u2028".encode("utf-16"), b"\xff", b"{}\0")
    with (
        tarfile.open(next(demo_shards.folder.glob("train-*.tar"))) as old,
        tarfile.open(odd, "w") as new,
    ):
        for i, member in enumerate(old):
            content = old.extractfile(member).read()
            if member.name.endswith("txt"):
                content = halves[i // 3 % 4]
            elif member.name.endswith("json"):
                content = metadata if i // 3 % 8 < 6 else b"{}"
            for name in (os.fsdecode(b"\xe9 " + member.name.encode()), f"._{member.name}"):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                new.addfile(header, io.BytesIO(content))
    record = odd.parent / "bad.jsonl"
    code, message = fit(
        "stage2_vtt",
        f"--data.init_args.train_videos={odd.parent}/*.tar",
        f"--data.init_args.val_videos={odd.parent}/*.tar",
        f"--data.init_args.quarantine={record}",
        f"--trainer.logger.init_args.save_dir={odd.parent}",
    )
    assert code == 0, message
    reasons = {json.loads(line)["reason"] for line in record.read_bytes().splitlines()}
    assert {"bad caption", "member left by a system"} <= reasons
