"""Parts of a data set: no video in two of them, classes in all of them, the same every time."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.shards import clips
from vmm.data.annotations.record import Annotation
from vmm.data.shards import ShardSet
from vmm.shards.command import main_make as main
from vmm.shards.splits import is_shares, parse_shares, split_by_video


def files(folder, count, size=1):
    """Files of different content; what they are nobody looks at here."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:03d}.mp4").write_bytes(f"{number:03d}".encode() * size)
    return [Annotation(f"{n:03d}", f"{n:03d}.mp4", [f"clip {n}"]) for n in range(count)]


def split(annotations, folder, text="80/10/10", **options):
    return split_by_video(annotations, folder, parse_shares(text), **options)


def keys(found):
    return {part: [item.key for item in found.items(part)] for part in found.parts}


def test_a_split_has_the_sizes_that_were_asked_for_and_depends_on_the_seed_alone(tmp_path):
    items = files(tmp_path, 100)
    found = split(items, tmp_path)
    assert {part: len(own) for part, own in keys(found).items()} == {
        "train": 80, "validation": 10, "test": 10,
    }  # fmt: skip
    assert sorted(key for own in keys(found).values() for key in own) == [
        item.key for item in items
    ]
    assert keys(split(items, tmp_path)) == keys(found)
    assert keys(split(items[::-1], tmp_path)) == keys(found)
    assert keys(split(items, tmp_path, seed=1)) != keys(found)
    assert set(split(items, tmp_path, "80/20/0").parts) == {"train", "validation"}
    assert [len(v) for v in split(items[:3], tmp_path, "98/1/1").parts.values()] == [1, 1, 1]


def test_what_is_of_one_video_stays_together(tmp_path):
    items = files(tmp_path, 40)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "007.mp4").read_bytes())
    cuts = [
        Annotation(f"cut {n}", "003.mp4", ["a cut"], start=float(n), end=n + 1.0) for n in range(4)
    ]
    more = [Annotation("copy", "copy.mp4", ["again"]), Annotation("gone", "gone.mp4", ["lost"])]
    scenes = [Annotation(f"s{n}", f"in/film-Scene-{n:03d}.mp4", ["a scene"]) for n in range(3)]
    items += [*scenes, *cuts, *more, Annotation("by stem", "003", ["said anew"])]
    for seed in range(8):
        found = split(items, tmp_path, "50/25/25", seed=seed)
        of = {key: part for part, own in keys(found).items() for key in own}
        assert len(of) == len(items)
        assert len({of[key] for key in ("003", "by stem", *(cut.key for cut in cuts))}) == 1
        assert of["copy"] == of["007"]
        assert of["s0"] == of["s1"] == of["s2"]
    assert "3 videos with several clips, which stay together: 003.mp4 has 6" in found.in_words()


def test_a_column_says_what_else_stays_together(tmp_path):
    films = [item._replace(metadata={"film": n % 5}) for n, item in enumerate(files(tmp_path, 40))]
    found = split(films, tmp_path, "60/20/20", group_by="film")
    sources = [{item.metadata["film"] for item in found.items(part)} for part in found.parts]
    assert sum(map(len, sources)) == 5 and all(sources)
    said = found.in_words()
    assert "train: 24 clips of 3 film groups" in said and "test: 8 clips of 1 film group," in said
    assert "5 film groups with several clips, which stay together: that of" in said
    assert "video" not in said
    with pytest.raises(
        ValueError, match=r"--group-by movie: '000\.mp4' has no such column; .*film"
    ):
        split(films, tmp_path, group_by="movie")
    two = [item._replace(metadata={"film": n % 2}) for n, item in enumerate(films)]
    with pytest.raises(ValueError, match=r"40 clips of 2 film groups are too few .*: no film g"):
        split(two, tmp_path, group_by="film")


def test_classes_are_spread_in_proportion_and_each_is_trained(tmp_path):
    sizes = {"run": 50, "jump": 30, "swim": 20, "rare": 1}
    names = [name for name, size in sizes.items() for _ in range(size)]
    items = [
        item._replace(metadata={"class": name, "label": 0})
        for item, name in zip(files(tmp_path, len(names)), names, strict=True)
    ]
    for seed in range(8):
        found = split(items, tmp_path, seed=seed)
        there = {p: Counter(i.metadata["class"] for i in found.items(p)) for p in found.parts}
        for name, size in sizes.items():
            assert abs(there["train"][name] - 0.8 * size) <= 2
            for part in ("validation", "test"):
                assert abs(there[part][name] - 0.1 * size) <= 1
        assert there["train"]["rare"] == 1
    assert "test has none of 1 class: rare" in found.in_words()
    assert "captions" in found.in_words()
    alone = [item._replace(captions=[item.metadata["class"]]) for item in items]
    said = split(alone, tmp_path).in_words()
    assert "videos, 4 classes" in said and "caption" not in said


def test_a_class_of_one_video_is_trained_whatever_the_other_parts_lack(tmp_path):
    items = [
        item._replace(metadata={"class": f"class {number}", "label": number})
        for number, item in enumerate(files(tmp_path, 12))
    ]
    sizes = {part: len(own) for part, own in keys(split(items, tmp_path, "10/45/45")).items()}
    assert sizes == {"train": 10, "validation": 1, "test": 1}  # one each, or they would be empty


def test_large_videos_do_not_upset_the_sizes(tmp_path):
    items = files(tmp_path, 30)
    cuts = [
        Annotation(f"{n} {s}", f"{n:03d}.mp4", [], start=float(s))
        for n in range(6)
        for s in range(10)
    ]
    for seed in range(8):
        found = split(items + cuts, tmp_path, seed=seed)
        sizes = [sum(video.clips for video in videos) for videos in found.parts.values()]
        assert sum(sizes) == 90 and abs(sizes[0] - 72) <= 6, sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("80/10", "has 2 parts; give three, training/validation/test"),
        ("80/10/20", "sums to 110"),
        ("0/50/50", "leaves nothing to train on"),
    ],
)
def test_wrong_shares(text, message):
    assert is_shares(text) and not is_shares("train+restval") and not is_shares(None)
    with pytest.raises(ValueError, match=message):
        parse_shares(text)


def test_the_command_makes_a_folder_of_each_part(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        clips.write_clip(
            tmp_path / f"films/{'run' if number % 2 else 'jump'}-{number}.mp4", [number]
        )
    make = ["films", "-o", "shards", "--workers", "1", "--dataset", "file-names"]
    assert main([*make, "--split", "50/30/20"]) == 0
    said = capsys.readouterr().out
    assert "train: 3 clips of 3 videos" in said and "points of a result" in said
    listed = json.loads((tmp_path / "shards/splits.json").read_text())["videos"]
    read = {}
    for part, names in listed.items():
        own = ShardSet(f"shards/{part}", "video")
        samples = [own.read(*own.locate(place)) for place in range(len(own))]
        assert [sample.metadata["media"] for sample in samples] == names
        read |= {sample.metadata["media"]: sample.captions for sample in samples}
    assert read == {name: [name.partition("-")[0]] for name in read} and len(read) == 6
    assert main([*make, "--split", "60/20/20"]) == 2
    said, complaint = capsys.readouterr()
    assert "shards that were made with other" in complaint and said == ""
    assert json.loads((tmp_path / "shards/splits.json").read_text())["videos"] == listed
    before = sorted(Path("shards").rglob("*"))
    assert main(make) == 2  # the whole beside the parts would be trained on
    assert "holds the parts of a split (train, validation, test)" in capsys.readouterr().err
    assert sorted(Path("shards").rglob("*")) == before
    whole = [*make[:2], "whole", *make[3:]]
    assert main(whole) == 0 and main([*whole, "--split", "50/30/20"]) == 2
    assert "holds shards of the whole" in capsys.readouterr().err
    for flags, message in (
        (["--split", "80/10/10", "--shard-range", "0:1"], "three folders"),
        (["--split", "80/10/10", "--samples-per-shard", "0"], "give at least 1"),
        (["--group-by", "film"], "is for --split 80/10/10"),
    ):
        capsys.readouterr()
        assert main([*make[:2], "x", *make[3:], *flags]) == 2
        said, complaint = capsys.readouterr()
        assert message in complaint and said == ""


def test_texts_beside_files_are_captions_and_samples_without_are_counted(tmp_path, capsys, caplog):
    for number in range(3):
        clips.write_clip(tmp_path / f"in/{number}.mp4", [number])
    (tmp_path / "in/0.txt").write_text("first\nsecond\n")
    (tmp_path / "in/1.txt").write_text("\n")
    make = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main([*make, "--dataset", "text-files"]) == 0
    assert "2 samples have no caption" in capsys.readouterr().out
    own = ShardSet(f"{tmp_path}/out", "video")
    assert [own.read(*own.locate(n)).captions for n in range(len(own))] == [["first", "second"]]
    assert main(make) == 2
    assert (
        "say with --dataset how its clips are described: class-folders" in capsys.readouterr().err
    )
    rows = "0.mp4,one\n0.mp4,\n1.mp4,\n1.mp4, \n9.mp4,gone\n2.mp4,\"['a', '', ' ']\"\n"
    (tmp_path / "in/list.csv").write_text(f"video,caption\n{rows}")
    csv = [str(tmp_path / "in/list.csv"), "-o", str(tmp_path / "table"), "--workers", "1"]
    assert main(csv) == 1
    said, complaint = capsys.readouterr()
    assert "1 missing (each is named in" in said and "1 sample has no caption" in said
    assert "done in part: 1 of 4 samples of" in complaint and "empty" not in complaint
    assert caplog.messages[1:] == [  # of 1.mp4 both are, which is the sample without
        f"{tmp_path}/in/list.csv: 3 captions are blank beside others of the same clip, and left out"
    ]


def test_a_part_of_which_every_file_is_bad_is_said_to_be_empty(tmp_path, capsys):
    for number in range(5):
        clips.write_clip(tmp_path / f"in/{number}.mp4", [number])
    make = [str(tmp_path / "in"), "--workers", "1", "--dataset", "file-names", "--split"]
    assert main([*make, "60/20/20", "-o", str(tmp_path / "good")]) == 0
    assert "done in part" not in capsys.readouterr().err
    dealt = json.loads((tmp_path / "good/splits.json").read_text())["videos"]
    assert len(dealt["train"]) == 3
    for name in dealt["train"]:
        (tmp_path / "in" / name).write_text(f"no video {name}")
    bad = tmp_path / "bad"
    assert main([*make, "60/20/20", "-o", str(bad)]) == 1
    train = bad / "train"
    assert capsys.readouterr().err.rstrip().rpartition("\n")[2] == (
        f"vmm shards make: done in part: 3 of 3 samples of {train} failed, so it is empty (mend or "
        f"leave out the files that {train}/failures.jsonl names, and give another --out)"
    )
    assert json.loads((bad / "splits.json").read_text())["videos"] == dealt  # all else is written
    assert json.loads((bad / "test/summary.json").read_text())["successes"] == 1
