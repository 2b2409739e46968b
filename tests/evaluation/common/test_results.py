import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.findings import Finding
from vmm.evaluation.common.results import (
    Result,
    clip_card,
    content_hash,
    count_problems,
    listed,
    text_table,
    unreadable,
)


@dataclass(frozen=True, kw_only=True)
class Toy(Result):
    SCHEMA: ClassVar[int] = 3
    FILE_NAME: ClassVar[str] = "toy.json"
    COMMAND: ClassVar[str] = "vmm eval toy"

    number: float

    def table(self):
        return str(self.number)

    def card(self):
        return self.origin()


TOY = Toy(
    name="é \ud83d",
    command="vmm eval toy",
    model={"encoder": "x", "parameters": 1_500_000, "checkpoint": "a.ckpt", "sha256": "00"},
    data={},
    settings={"decoder": "pyav", "device": "cpu", "num_frames": 4, "sampling": "random",
              "image_size": 32, "fit": "crop"},
    findings=[Finding("a", "b", "c")],
    versions={"torch": "2"},
    number=0.1,
)  # fmt: skip


def test_a_field_more_is_a_key_more_and_comes_back(tmp_path):
    path = TOY.write(tmp_path)
    assert path == tmp_path / "toy.json" and path.read_bytes().isascii()
    assert json.loads(path.read_text())["number"] == 0.1
    assert Toy.read(path) == Toy.read(tmp_path) == TOY


def test_what_is_no_result_of_this_kind_is_refused_with_the_remedy(tmp_path):
    path = TOY.write(tmp_path)
    content = json.loads(path.read_text())
    for text, said in (
        (
            json.dumps(content | {"schema": 2}),
            "no result of this version of `vmm eval toy`; run",
        ),
        (json.dumps({"schema": 3}), "lacks command, data, .*; run `vmm eval toy` again"),
        ("[]", "no result of this version"),
        ("{", "cannot be read as a result of `vmm eval toy`"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            Toy.read(tmp_path)
    with pytest.raises(ValueError, match="it is not there; name the folder that `vmm eval toy`"):
        Toy.read(tmp_path / "gone.json")


def test_a_newer_file_may_hold_more(tmp_path):
    path = TOY.write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}))
    assert Toy.read(path) == TOY


def test_every_card_says_how_a_clip_was_seen_and_where_it_comes_from():
    assert TOY.look("reversed") == [
        ("frames", "4, sampling 'random' without draws, reversed"),
        ("resolution", "32 pixels, crop"),
    ]
    assert TOY.look()[0][1].endswith("draws")
    clip = ClipSettings(
        8, 64, sampling="dense", stride=3, fit="crop", crop_pct=0.9, antialias=False
    )
    assert replace(TOY, settings=clip_card(clip)).look() == [
        ("frames", "8, sampling 'dense' without draws, stride 3"),
        ("resolution", "64 pixels, crop of 0.9, bicubic without antialiasing"),
    ]
    assert "stride" not in clip_card(replace(clip, sampling="random", stride=1))
    assert clip_card(clip, sampled=False)["mean"] == list(clip.mean)
    origin = dict(TOY.origin())
    assert origin["model"] == "x, 1.50 M parameters" and origin["versions"] == "torch 2"


def test_hashes_of_what_was_published_never_move():
    content = {"b": [1, 2.5, None, "é"], "a": Path("x")}
    assert content_hash(content) == content_hash(dict(reversed(content.items())))
    assert content_hash(content) == "a3e484c985a9a6c4"


def test_reasons_are_counted_and_nothing_readable_is_refused():
    assert count_problems([None, "empty", "empty", "gone"], "clips") == Counter(empty=2, gone=1)
    assert listed({"empty": 2, "gone": 1}) == "2 empty, 1 gone"
    with pytest.raises(ValueError, match=r"not one of 3 clips could be read \(empty\)"):
        count_problems(["empty", "gone", "empty"], "clips")


def test_columns_of_a_table_are_aligned():
    table = text_table([["", "x", "number"], ["a long name", "y", "1.0"]], left=2)
    assert table == "             x  number\na long name  y     1.0"


def test_what_media_that_cannot_be_read_do_to_a_number():
    assert not unreadable({}, 4, "clips", "strict")
    problems = {"missing": 1, "truncated": 2}
    (found,) = unreadable(problems, 9, "videos", "strict", (5, 20, "questions"))
    assert found == Finding(
        "unreadable-videos",
        "3 of 9 videos cannot be read (1 missing, 2 truncated), with 5 of 20 questions",
        "these count as misses: up to 25.0 points",
    )
    (found,) = unreadable(problems, 12, "samples", "available")
    assert found.message == "3 of 12 samples cannot be read (1 missing, 2 truncated)"
    assert found.effect == "these are left out: the number is of a part of the set"
