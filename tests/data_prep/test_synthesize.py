import io
import json
import tarfile
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.encode import encode_mp4
from data_prep.shapes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    TWIN_MOTIONS,
    Scene,
    all_answers,
    questions,
    render,
    twin_pairs,
)
from data_prep.synthesize import Arguments, main, plan, synthesize
from vmm.data.schema import split_member

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


def test_scenes_are_all_different_and_twins_differ_in_motion_only():
    pairs = twin_pairs()
    scenes = [scene for pair in pairs for scene in pair]
    total = len(SHAPES) * len(COLOURS) * len(SIZES) * len(TEXTURES) * len(BACKGROUNDS)
    assert len(scenes) == len({scene.caption for scene in scenes}) == total * len(MOTIONS)
    for a, b in pairs:
        assert a.twin == b and b.twin == a and a.still_caption == b.still_caption
        assert (a.motion, b.motion) in TWIN_MOTIONS
    scene = Scene("circle", "red", "small", "striped", "grey", "left")
    assert scene.caption == "a small striped red circle moves to the left on a grey background"
    assert scene.still_caption == "a small striped red circle on a grey background"


def test_splits_share_no_scene_and_test_captions_are_unique():
    arguments = Arguments()
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


@pytest.mark.parametrize("motion", [pair[0] for pair in TWIN_MOTIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_rendered_twins_are_each_other_backwards(shape, motion):
    scene = Scene(shape, "red", "large", TEXTURES[-1], BACKGROUNDS[-1], motion)
    forward, backward = (render(s, 9, 64, np.random.default_rng(5)) for s in (scene, scene.twin))
    assert np.array_equal(forward, backward[::-1]) and not np.array_equal(forward, backward)


def moment(frames, background):
    """(x, y, mass) of the difference to an empty background, per frame."""
    weight = np.abs(frames.astype(float) - background).mean(-1)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    mass = weight.sum((1, 2))
    return (weight * x).sum((1, 2)) / mass, (weight * y).sum((1, 2)) / mass, mass


@pytest.mark.parametrize(
    ("motion", "quantity", "sign"),
    [
        ("left", 0, -1),
        ("right", 0, 1),
        ("up", 1, -1),
        ("down", 1, 1),
        ("grow", 2, 1),
        ("shrink", 2, -1),
        ("appear", 2, 1),
        ("vanish", 2, -1),
    ],
)
def test_clips_show_what_their_captions_say(motion, quantity, sign):
    scene = Scene(SHAPES[0], "red", "small", "plain", "black", motion)
    frames = render(scene, 12, 64, np.random.default_rng(0))
    steps = np.diff(moment(frames, 15)[quantity])
    assert (sign * steps).min() > (0.3 if quantity < 2 else 5)


def test_colours_sizes_and_textures_are_visible():
    def picture(**changes):
        look = {"shape": SHAPES[0], "colour": "red", "size": "large", "texture": "plain"}
        scene = Scene(**(look | changes), background="black", motion="left")
        return render(scene, 3, 64, np.random.default_rng(1))[1].astype(float)

    for name, values in (
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("texture", TEXTURES),
    ):
        pictures = [picture(**{name: value}) for value in values]
        for i, one in enumerate(pictures):
            for other in pictures[:i]:
                assert (np.abs(one - other).max(-1) > 40).sum() > 15, name
    assert np.allclose(picture()[28:36, 28:36].mean((0, 1)), COLOURS["red"], atol=15)


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


def test_a_decoded_frame_does_not_depend_on_its_place_in_the_clip():
    # Else a statistic of single frames, such as sharpness, tells the direction of time.
    scene = twin_pairs()[7][0]
    frames = render(scene, 24, 64, np.random.default_rng(0))
    clip = decode(encode_mp4(frames, 12))
    for number in (0, 1, 2, 8, 9, 10, 23):
        alone = decode(encode_mp4(frames[number : number + 1], 12))
        assert np.array_equal(clip[number], alone[0])


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


def test_outdated_and_incomplete_data_are_made_again(made, tmp_path):
    arguments = Arguments(train=2, val=2, test=2, images=2, frames=4)
    out = tmp_path / "demo"
    assert synthesize(out, arguments, workers=1) and not synthesize(out, arguments, workers=1)
    (out / "val-000000.tar").unlink()
    assert synthesize(out, arguments, workers=1) and (out / "val-000000.tar").is_file()
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"version": 1}))
    assert synthesize(out, arguments, workers=1) and not synthesize(out, arguments, workers=1)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.folders.write_shard", fail)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "demo", Arguments(train=2, val=2, test=2, images=2), workers=1)
    assert list(tmp_path.iterdir()) == []


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

    check = "import sys, data_prep.synthesize; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
