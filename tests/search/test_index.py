import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from vmm.search.index import Index, read_settings
from vmm.search.parts import Record, part_paths
from vmm.search.sources import Source
from vmm.whole import PARTIAL


def record(name, count, **more):
    return Record(f"/videos/{name}", "", digest=f"content of {name}", **{"count": count, **more})


def rows(count, start=0):
    """Spans and vectors; a vector tells which moment it is."""
    numbers = np.arange(start, start + count)
    return [(float(i), i + 1.0) for i in numbers], [np.full(24, i, np.float32) for i in numbers]


def found(index):
    """{name: the numbers in its vectors}, in order."""
    moments = index.moments()
    vectors = np.concatenate([np.zeros((0, 24)), *moments.vectors])
    numbers = {video.path.name: [] for video in moments.videos}
    for row in np.flatnonzero(moments.owner >= 0):
        assert moments.spans[row, 0] == vectors[row, 0]
        numbers[moments.videos[moments.owner[row]].path.name].append(int(vectors[row, 0]))
    return numbers


def test_twins_that_a_mac_writes_beside_the_parts_are_no_parts(new_index):
    folder = new_index().folder
    new_index().add([Record("/v/1", "", 1, 1, "d", 1.0, 0, 0, True)], [], [])
    (part,) = (folder / "parts").iterdir()
    for name in (f"parts/._{part.name}", "._index.json", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7Mac")
    index = new_index()
    assert len(index.parts) == len(index.videos) == 1 and not index.moments().videos
    (folder.parent / "new").mkdir()
    (folder.parent / "new" / ".DS_Store").write_bytes(b"Bud1")
    assert not new_index("new").videos


def test_records_add_up_begin_anew_or_are_passed_over(new_index):
    index = new_index()
    index.add([record("a", 2), record("b", 1)], *rows(3))
    index.add([record("a", 3, first=2, done=True)], *rows(3, 3))
    index.add([record("a", 3, first=2, done=True)], *rows(3, 60))  # the same once more
    index.add([record("a", 2)], *rows(2, 70))  # from a process that began at the same time
    index.add([record("c", 1, first=4)], *rows(1, 80))  # what came before it is lost
    assert found(new_index()) == {"a": [0, 1, 3, 4, 5], "b": [2]}
    assert new_index().videos[Source(Path("/videos/a"))].record.done
    index.add([replace(record("b", 2), digest="other")], *rows(2, 10))
    assert found(new_index()) == {"a": [0, 1, 3, 4, 5], "b": [10, 11]}
    index.add([], [], [], removed=[Source(Path("/videos/a"))])
    assert found(new_index()) == {"b": [10, 11]}
    index.add([record("a", 1)], *rows(1, 20))
    assert found(new_index()) == {"b": [10, 11], "a": [20]} and new_index().num_moments == 3


def test_numbers_in_a_part_begin_where_a_processor_reads_them_well(new_index):
    index = new_index()
    for length in range(1, 9):
        index.add([record("n" * length, 1)], *rows(1))
    for path in part_paths(index.folder / "parts"):
        size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + size])
        begins = [8 + size + table["data_offsets"][0] for n, table in header.items() if n[0] != "_"]
        assert len(begins) == 3 and not any(begin % 8 for begin in begins)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_vectors_that_are_no_numbers_are_not_written(new_index, value):
    index = new_index()
    spans, vectors = rows(2)
    vectors[1][3] = value
    with pytest.raises(ValueError, match=r"a vector of /videos/a holds NaN or infinity; nothing"):
        index.add([record("a", 2)], spans, vectors)
    assert not new_index().parts


def test_compacting_changes_nothing_even_when_it_is_interrupted(new_index, monkeypatch):
    index = new_index()
    index.add([record("a", 2), record("b", 1, problem="bad")], *rows(3))
    index.add([record("a", 2, first=2)], *rows(2, 3))
    index.add([], [], [], removed=[Source(Path("/videos/c"))])
    index.add([record("c", 1)], *rows(1, 9))
    before = new_index()
    with monkeypatch.context() as patch:  # killed before it removes the old parts
        patch.setattr(Path, "unlink", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            new_index().compact()
    assert len(part_paths(before.folder / "parts")) == 5
    assert found(new_index()) == found(before) == {"a": [0, 1, 3, 4], "b": [2], "c": [9]}
    index = new_index()
    index.add([record("a", 1, first=4, done=True)], *rows(1, 12))  # a writer that goes on
    new_index().compact()
    index = new_index()
    assert found(index) == {"a": [0, 1, 3, 4, 12], "b": [2], "c": [9]}
    assert len(index.parts) == 1 == len(part_paths(index.folder / "parts"))
    assert index.videos[Source(Path("/videos/a"))].record.done
    assert index.problems == {Source(Path("/videos/b")): "bad"} and not index.verify()[3:]


def test_a_part_written_while_another_process_compacts_stays(new_index):
    index, other = new_index(), new_index()
    index.add([record("a", 2)], *rows(2))
    index.add([record("b", 1)], *rows(1, 5))
    compacting = new_index()
    other.add([record("a", 2, first=2)], *rows(2, 2))
    compacting.compact()
    assert found(new_index()) == {"a": [0, 1, 2, 3], "b": [5]}


def test_unfinished_files_are_not_read_and_old_ones_go_with_compacting(new_index):
    index = new_index()
    index.add([record("a", 1)], *rows(1))
    parts = index.folder / "parts"
    old, fresh = parts / f"1-x.safetensors.1{PARTIAL}", parts / f"2-x.safetensors.2{PARTIAL}"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert found(new_index()) == {"a": [0]}
    new_index().compact()
    assert not old.exists() and fresh.exists() and found(new_index()) == {"a": [0]}


def test_a_damaged_part_is_named_and_may_be_deleted(new_index):
    index = new_index()
    index.add([record("a", 2)], *rows(2))
    index.add([record("a", 2, first=2)], *rows(2, 2))
    first = part_paths(index.folder / "parts")[0]
    whole = first.read_bytes()
    assert [w for w in new_index().verify() if "damaged" in w] == []
    inside = len(whole) - 3  # of the vectors: only a sum can tell
    first.write_bytes(whole[:inside] + bytes([whole[inside] ^ 1]) + whole[inside + 1 :])
    assert [w for w in new_index().verify() if first.name in w and "delete it" in w]
    for damage in (whole[:-5], b"", whole[:100], b"\xff" * 200):
        first.write_bytes(damage)
        with pytest.raises(ValueError, match=rf"{first.name} is damaged.*delete it"):
            new_index()
    first.unlink()
    assert found(new_index()) == {} and new_index().num_moments == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"vmm_index": 3}', b'{"vmm_index": 2}', b"[" * 100_000],
)
def test_a_damaged_description_is_an_error_with_a_remedy(new_index, content):
    path = new_index().folder / "index.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"index.json is damaged: .*make the index again"):
        read_settings(path.parent)


def test_wrong_values_in_the_description(new_index):
    index = new_index()
    path = index.folder / "index.json"
    right = {"vmm_index": 2, **asdict(index.settings)}
    wrong = {"window": 0, "stride": "4", "embedding_dim": -1, "fingerprint": 7, "shots": 1}
    for name, value in {**wrong, "vmm_index": 1}.items():
        path.write_text(json.dumps({**right, name: value}))
        with pytest.raises(ValueError, match="damaged"):
            read_settings(index.folder)
    path.write_text(json.dumps(right))
    assert read_settings(index.folder) == index.settings


def test_an_index_from_before_there_were_shots_is_read(new_index):
    index = new_index()
    path = index.folder / "index.json"
    old = json.loads(path.read_text())
    del old["shots"]
    path.write_text(json.dumps({**old, "vmm_index": 1}))
    assert new_index().settings == index.settings and not index.settings.shots


def test_an_index_made_otherwise_or_something_else_is_refused(new_index, tmp_path):
    new_index()
    for name, value in (("window", 2.0), ("stride", 1.0), ("num_frames", 4), ("shots", True)):
        with pytest.raises(ValueError, match=f"made with {name}"):
            new_index(**{name: value})
    with pytest.raises(ValueError, match=r"encoder plain .*ffff.*not with other \(0000"):
        new_index(fingerprint="0" * 64, encoder="other")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="no index"):
        new_index("photos")
    with pytest.raises(ValueError, match="`vmm encode` makes one"):
        Index.open(tmp_path / "photos")
    (tmp_path / "begun" / "parts").mkdir(parents=True)  # killed before index.json was there
    (tmp_path / "begun" / f"index.json.1{PARTIAL}").write_bytes(b"{")
    assert new_index("begun").num_moments == 0
