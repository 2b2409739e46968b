import io
import json
import tarfile
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from vmm.data.schema import split_member
from vmm.shards.demo.shapes import (
    MOTIONS,
    Scene,
    all_answers,
    questions,
    render,
    twin_pairs,
)
from vmm.shards.demo.synthesize import ClipArguments, main, plan

SMALL = ["--train", "40", "--val", "4", "--test", "8", "--images", "6", "--frames", "12"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "demo"
    assert main(["--out", str(folder), *SMALL, "--workers", "1"]) == 0
    return folder


def samples(folder, split):
    """{key: {extension: content}} of all shards of a split."""
    found = {}
    for shard in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, extension = split_member(member.name)
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return found


def decode(mp4):
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_splits_share_no_scene_and_test_captions_are_unique():
    arguments = ClipArguments()
    jobs = plan(arguments)
    assert {split: len(jobs[split]) for split in jobs} == {
        split: getattr(arguments, split) for split in ("train", "val", "test", "images")
    }
    scenes = {split: {job.scene for job in jobs[split]} for split in jobs}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not scenes[a] & scenes[b]
    assert scenes["images"] <= scenes["train"]
    for split in ("val", "test"):
        assert len(scenes[split]) == len(jobs[split])
        assert all(scene.twin in scenes[split] for scene in scenes[split])
    # Every word of a test caption is learnt: each attribute value occurs often in training.
    learnt = [job.scene.attributes().values() for job in jobs["train"]]
    counts = Counter(value for values in learnt for value in values)
    assert set(counts) >= {v for s in scenes["test"] for v in s.attributes().values()}
    assert min(counts.values()) > 100


def test_clips_are_h264_that_browsers_play(made):
    for sample in samples(made, "train").values():
        with av.open(io.BytesIO(sample["mp4"])) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert (stream.codec_context.name, stream.average_rate) == ("h264", 12)
            assert stream.codec_context.profile in ("High", "Main", "Constrained Baseline")
            assert (stream.width, stream.height, stream.pix_fmt) == (64, 64, "yuv420p")
        assert len(frames) == 12


def test_clips_show_what_was_rendered(made):
    for number, (key, sample) in enumerate(samples(made, "test").items()):
        scene = Scene(**json.loads(sample["json"])["attributes"])
        rendered = render(scene, 12, 64, np.random.default_rng((0, 2, number // 2)))
        assert int(key) == number
        assert np.abs(decode(sample["mp4"]).astype(float) - rendered).mean() < 4


@pytest.mark.parametrize("split", ["val", "test"])
def test_decoded_twins_are_each_other_backwards_to_the_pixel(made, split):
    clips = list(samples(made, split).values())
    assert len(clips) == {"val": 4, "test": 8}[split]
    for one, other in zip(clips[::2], clips[1::2], strict=True):
        assert np.array_equal(decode(one["mp4"]), decode(other["mp4"])[::-1])
        assert json.loads(one["json"])["reversed_caption"] == other["txt"].decode()
        assert json.loads(other["json"])["reversed_caption"] == one["txt"].decode()


def test_samples_are_complete(made):
    for split, media in (("train", "mp4"), ("images", "jpg")):
        found = samples(made, split)
        assert len(found) == {"train": 40, "images": 6}[split]
        for key, sample in found.items():
            metadata = json.loads(sample["json"])
            assert set(sample) == {media, "txt", "json"}
            assert metadata["key"] == key and metadata["status"] == "success"
            assert metadata["caption"] == sample["txt"].decode()
    still = Image.open(io.BytesIO(sample["jpg"]))
    assert still.size == (64, 64) and not set(sample["txt"].decode().split()) & {
        word for phrase in MOTIONS.values() for word in phrase.split()
    }
    train = next(iter(samples(made, "train").values()))
    metadata = json.loads(train["json"])
    scene = Scene(**metadata["attributes"])
    assert (scene.caption, scene.twin.caption) == (
        metadata["caption"],
        metadata["reversed_caption"],
    )


def test_two_runs_write_the_same_bytes(made, tmp_path):
    again = tmp_path / "again"
    assert main(["--out", str(again), *SMALL, "--workers", "2"]) == 0
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in names:
        assert (made / name).read_bytes() == (again / name).read_bytes(), name
    other = tmp_path / "other"
    main(["--out", str(other), *SMALL, "--seed", "1", "--workers", "1"])
    assert (made / "test-000000.tar").read_bytes() != (other / "test-000000.tar").read_bytes()


def test_what_is_there_is_kept_and_never_overwritten_unasked(made, capsys):
    before = (made / "manifest.json").stat().st_mtime_ns
    assert main(["--out", str(made), *SMALL]) == 0
    assert "already there" in capsys.readouterr().out
    assert main(["--out", str(made), *SMALL, "--seed", "9"]) == 2
    assert "give another --out, or --overwrite" in capsys.readouterr().err
    assert (made / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test", "3"], "--test is 3; give an even number"),
        (["--train", "0"], "--train is 0; give a positive number"),
        (["--image-size", "63"], "--image-size is 63"),
        (["--val", "7000", "--test", "7000"], "leave nothing to train on"),
    ],
)
def test_impossible_arguments(tmp_path, capsys, options, message):
    assert main(["--out", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err


def test_the_demo_text_encoder_knows_every_word(root):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = root / "recipes/encoders/bert_demo"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    assert config.vocab_size == len(tokenizer)
    for scene in (scene for pair in twin_pairs() for scene in pair):
        words = scene.caption.split()
        assert tokenizer.tokenize(scene.caption.upper()) == words
    pieces = tokenizer.tokenize("Zebras, 42!")
    assert "[UNK]" not in pieces and "".join(p.removeprefix("##") for p in pieces) == "zebras,42!"
    assert tokenizer("a")["input_ids"][0] == tokenizer.cls_token_id


def test_every_clip_asks_what_its_caption_answers(made):
    listed = json.loads((made / "answers.json").read_text())
    assert len(set(listed)) == len(listed) == len(all_answers())
    for parts in samples(made, "test").values():
        metadata = json.loads(parts["json"])
        assert len(metadata["items"]) == 4
        for item in metadata["items"]:
            asked = item["metadata"]
            assert asked["answer"] in listed and asked["answer"] in metadata["caption"]
    for a, b in twin_pairs()[:50]:  # twins look alike: only what happens tells them apart
        different = {k for k in questions(a) if questions(a)[k] != questions(b)[k]}
        assert different == {"event"}


def test_no_torch_is_needed():
    import subprocess
    import sys

    check = "import sys, vmm.shards.demo.synthesize; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
