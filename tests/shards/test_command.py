import json

import pytest

from tests.data.annotations.examples import EXAMPLES
from tests.shards import clips
from vmm.data.schema import labels_of
from vmm.data.shards import ShardSet
from vmm.shards.command import main_make as main

LABELS = {
    "kinetics": ("air drumming", None),
    "ssv2": ("Holding something next to something", 41),
    "ssv1": ("Something falling", 1),
    "coin": ("PutOnHairExtensions", 5),
    "breakfast": ("cereals", 0),
    "lvu": ("Ron Howard", 2),
    "lvu number": (None, 9.25),
    "labelled list": (None, 3),
    "class table": ("run", 1),
}
"""What a classifier is told of the first sample: name and number of its class."""
CLASSES = {
    "class table": ["jump", "run"],
    "kinetics": ["air drumming", "skiing (not slalom or crosscountry)"],
    "coin": ["", "", "", "", "", "PutOnHairExtensions", "MakeRJ45Cable"],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_format_arrives_in_the_reader_with_its_captions_and_media(tmp_path, name):
    example = EXAMPLES[name]
    path = example.write(tmp_path / "files")
    kind = "image" if next(iter(example.media)).endswith("jpg") else "video"
    for number, file in enumerate(example.media):
        write = clips.write_picture if kind == "image" else clips.write_clip
        write(tmp_path / "media" / file, number if kind == "image" else [number] * 4)
    flags = []
    for option, value in example.options.items():
        if option == "paragraph":
            flags += ["--paragraph" if value else "--no-paragraph"]
        else:
            flags += [f"--{option}", str(tmp_path / "files" / value) if option == "ids" else value]
    media, out = str(tmp_path / "media"), tmp_path / "out"
    arguments = [str(path), media, "-o", str(out), "--dataset", example.dataset, "--workers", "1"]
    assert main(arguments + flags) == 0
    assert (out / "failures.jsonl").read_text().strip() == ""

    shards = ShardSet(f"{out}/*.tar", kind)
    assert not shards.skipped and not shards.damaged
    read = [shards.read(*shards.locate(i)) for i in range(len(shards))]
    listed = [(item["id"], r) for r in read for item in r.metadata["items"]]
    # Several questions about a video are one sample, whose captions are the questions.
    assert [key for key, _ in listed] == [key for key, _ in example.items]
    assert [c for r in read for c in r.captions] == [c for _, cs in example.items for c in cs]
    by_id = dict(listed)
    for file, key in example.media.items():
        assert by_id[key].data == (tmp_path / "media" / file).read_bytes()
    first = read[0].metadata["items"][0]["metadata"]
    assert first | json.loads(json.dumps(dict(example.metadata))) == first
    if name in LABELS:
        assert labels_of(read[0].metadata, read[0].captions) == [LABELS[name]]
    listed = out / "classes.txt"
    assert (listed.read_text().splitlines() if listed.exists() else []) == CLASSES.get(name, [])


@pytest.fixture
def folders(tmp_path):
    """Two classes of pictures, one of them also with a video, and what a system has left."""
    for number, file in enumerate(("b dog/1.png", "b dog/more/2.jpg", "a cat/1.png")):
        clips.write_picture(tmp_path / "media" / file, number)
    clips.write_clip(tmp_path / "media/b dog/3.mp4", [1] * 3)
    (tmp_path / "media/@eadir").mkdir()
    (tmp_path / "media/b dog/notes.txt").write_text("no picture")
    return str(tmp_path / "media")


def test_folders_of_classes_are_a_data_set(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [folders, folders, "-o", str(out), "--workers", "1", "--dataset", "class-folders"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert (out / "classes.txt").read_text() == "a cat\nb dog\n"
    stills, films = (ShardSet(f"{out}/*.tar", kind) for kind in ("image", "video"))
    read = [s.read(*s.locate(i)) for s in (stills, films) for i in range(len(s))]
    found = {r.metadata["media"]: labels_of(r.metadata, r.captions) for r in read}
    assert found == {
        "a cat/1.png": [("a cat", 0)],
        "b dog/1.png": [("b dog", 1)],
        "b dog/more/2.jpg": [("b dog", 1)],
        "b dog/3.mp4": [("b dog", 1)],
    }
    assert main([*arguments, "--split", "train"]) == 2
    assert "are for annotation files" in capsys.readouterr().err
    (tmp_path / "none/sub").mkdir(parents=True)
    none = str(tmp_path / "none")
    assert main([none, none, "-o", str(tmp_path / "x"), "--dataset", "class-folders"]) == 2
    assert "every class has a folder of its own there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--short-side", "0"], "--short-side is 0; give at least 2"),
        (["--fps", "0"], "--fps 0.0; give positive"),
        (["--quality", "100"], "--quality is 100"),
        (["--samples-per-shard", "0"], "--samples-per-shard is 0"),
        (["--shard-range", "3:3"], "--shard-range is 3:3"),
        (["--dataset", "msrvt"], "no data set 'msrvt'"),
        (["--split", "train"], "has no split 'train'"),
        (["--split", "60-20-20"], "or give percent with /, e.g. 80/10/10"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, flags, message):
    clips.write_clip(tmp_path / "media/a.mp4", [1] * 3)
    (tmp_path / "list.csv").write_text("file,caption\na.mp4,c\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "-o", str(tmp_path / "out")]
    assert main([*arguments, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.tar"))


def test_nothing_usable_is_a_failure(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    (tmp_path / "media/other.mp4").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("file,caption\na.mp4,c\n")
    arguments = [str(tmp_path / "list.csv"), str(tmp_path / "media"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 1
    assert "0 of 1 sample," in capsys.readouterr().out
