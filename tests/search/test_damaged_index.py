"""Indexes from strangers: whatever is in the files, it is an index, or it is said to be none."""

import json
import math
import random
import shutil
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.search.plain import PlainEncoder
from vmm.search.index import Index
from vmm.search.parts import Record
from vmm.search.query import Searcher

VECTOR = np.ones(24, np.float32)
PIECES = (b"null", b"-", b"[", b"9" * 25, b"1e999", b"NaN", b'"', b"\\ud83d", b"\\u0000", b"\xff")
SAID = ("is damaged", "was made with the encoder", "is no index")


@pytest.fixture
def folder(new_index):
    """An index of three videos in as many parts, one of them of a shard."""
    rng = np.random.default_rng(0)
    for number in range(3):
        vectors = rng.normal(size=(4, 24)).astype(np.float32)
        member = "m.mp4" if number else ""
        record = Record(f"/v/{number}", member, 5, 6, "d" * 8, 3.0, 0, 4, True)
        new_index().add([record], [(i, i + 1) for i in range(4)], list(vectors))
    return new_index().folder


def use(folder):
    """Do all that is done with an index that one was given."""
    searcher = Searcher(Index.open(folder), PlainEncoder())
    for hit in searcher.search(VECTOR, 9):
        assert str(hit.source) and hit.when
        searcher.curve(VECTOR, hit.source)
        with suppress(OSError):
            hit.source.content()
    assert all(isinstance(line, str) for line in searcher.index.verify())
    assert json.dumps([str(source) for source in searcher.index.problems])
    searcher.index.compact()
    Index.open(folder)


def mutate(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) or 1)
        digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
        kind = rng.choice(("bit", "cut", "piece", "piece", "digit", "digit", "lose"))
        if kind == "bit" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[at:]
        elif kind == "piece":
            data[at:at] = rng.choice(PIECES)
        elif kind == "digit" and digits:
            data[rng.choice(digits)] = rng.choice(b"0123456789-.e")
        else:
            del data[at : at + rng.randint(1, 9)]
    return bytes(data)


def with_records(path, change):
    """Change what a part says of its videos, as somebody would who writes parts."""
    arrays = load(path.read_bytes())
    arrays["records"] = np.frombuffer(change(arrays["records"].tobytes()) or b" ", np.uint8)
    path.write_bytes(save(arrays))


def test_mutants_are_used_or_told(folder, tmp_path):
    for number in range(200):
        rng = random.Random(number)
        copy = shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=False)
        path = rng.choice([copy / "index.json", *sorted((copy / "parts").iterdir())])
        if path.suffix == ".json" or number % 2:
            path.write_bytes(mutate(path.read_bytes(), rng))
        else:
            with_records(path, lambda data, rng=rng: mutate(data, rng))
        try:
            use(copy)
        except ValueError as error:
            assert type(error) is ValueError and any(s in str(error) for s in SAID), number
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", 5), ("path", None), ("path", "a\0b"), ("path", "half \ud83d"), ("member", 1),
        ("size", "5"), ("mtime_ns", None), ("digest", 3), ("seconds", "x"), ("seconds", [1]),
        ("first", "0"), ("count", 4.0), ("count", -4), ("seconds", math.nan), ("done", "yes"),
        ("problem", None), ("problem", {}),
    ],
)  # fmt: skip
def test_a_record_of_wrong_values_is_told(folder, field, value):
    def change(data):
        content = json.loads(data)
        content["records"][0][field] = value
        return json.dumps(content).encode()

    with_records(min((folder / "parts").iterdir()), change)
    with pytest.raises(ValueError, match=r"is damaged: .*delete it"):
        use(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", math.inf), ("stride", math.nan), ("window", "8"), ("embedding_dim", 24.5),
        ("embedding_dim", -1), ("num_frames", 0), ("num_frames", "4"), ("num_frames", 2.5),
        ("encoder", None), ("fingerprint", 5), ("vmm_index", 9), ("more", 1), ("window", True),
    ],
)  # fmt: skip
def test_settings_of_wrong_values_are_told(folder, field, value):
    content = json.loads((folder / "index.json").read_bytes())
    (folder / "index.json").write_text(json.dumps({**content, field: value}))
    with pytest.raises(ValueError, match=r"index.json is damaged: .*make the index again"):
        use(folder)
