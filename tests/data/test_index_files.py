"""What a start reads of the stored indexes, and how they come into being."""

import json

import pytest

from vmm.data import index_files, shards
from vmm.data.contents import Selection, Summary, selections
from vmm.data.faults import SampleError
from vmm.data.index_files import INDEX_SUFFIX, index_shards, load_index, load_summaries
from vmm.data.shards import ShardSet


@pytest.fixture
def paths(tools, tmp_path):
    """A sound shard, and one with all that can be left out."""
    sound = [("a.mp4", b"a"), ("a.txt", b"one"), ("b.mp4", b"bb"), ("b.txt", b"two")]
    odd = [
        *(
            ("a.mp4", b"a"),
            ("a.txt", b"one"),
            ("b.mp4", b"b"),
            ("c.jpg", b"c"),
            ("c.txt", b"three"),
        ),
        *(("d.mp4", b"d"), ("d.txt", b"caf\xe9"), ("readme", b"?"), ("a.mp4", b"again")),
    ]
    return [
        str(tools.write_tar(tmp_path / name, members))
        for name, members in (("0.tar", sound), ("1.tar", odd))
    ]


def of_new_index(path, selection):
    return Summary.of(load_index(path), selection)


@pytest.mark.parametrize("selection", selections(), ids=str)
def test_the_first_line_says_what_the_whole_index_says(paths, selection, monkeypatch):
    index_shards(paths)
    expected = [of_new_index(path, selection) for path in paths]
    monkeypatch.setattr(index_files, "load_index", lambda path: pytest.fail("read whole"))
    assert list(load_summaries(paths, selection)) == expected


def test_what_it_says(paths):
    (sound, odd) = load_summaries(paths, Selection("video", captioned=True))
    assert (sound.samples, sound.complete, sound.left_out, sound.damage) == (2, 2, {}, None)
    members = {"member repeated name": 1, "member not part of a sample": 1}
    reasons = {"no caption": 1, "bad caption": 1, "no video": 1}
    assert (odd.samples, odd.complete, odd.left_out) == (1, 4, members | reasons)
    (_, every) = load_summaries(paths, Selection("video", captioned=False))
    assert (every.samples, every.left_out) == (3, members | {"no video": 1})
    assert len({sound.digest, odd.digest, every.digest}) == 3


def test_opening_reads_whole_indexes_of_incomplete_shards_only(paths, monkeypatch):
    index_shards(paths)
    read = []

    def note(path):
        read.append(path)
        return load_index(path)

    monkeypatch.setattr(index_files, "load_index", note)
    monkeypatch.setattr(shards, "load_index", note)
    found = ShardSet(paths, "video")
    assert len(found) == 3 and not read
    assert {sample.reason for sample in found.left_out()} == set(found.skipped)
    assert read == paths[1:]
    assert found.read(0, 1).captions == ["two"] and read == [paths[1], paths[0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head["summaries"].clear(),
        lambda head: head.pop("summaries"),
        lambda head: head["summaries"]["video captioned"].update(samples=-1),
        lambda head: head["summaries"]["video captioned"].update(samples=5),
        lambda head: head["summaries"]["video captioned"].update(samples="many"),
        lambda head: head["summaries"]["video captioned"].update(left_out={"x": 0}),
        lambda head: head["summaries"]["video captioned"].update(left_out=3),
        lambda head: head["stamp"].append(0),
    ],
)
def test_a_first_line_that_cannot_be_is_not_believed(paths, change):
    index_shards(paths)
    expected = [of_new_index(path, Selection("video")) for path in paths]
    with open(paths[0] + INDEX_SUFFIX) as file:
        first, rest = file.read().split("\n", 1)
    head = json.loads(first[:-1] + "}")
    change(head)
    with open(paths[0] + INDEX_SUFFIX, "w") as file:
        file.write(f"{json.dumps(head)[:-1]},\n{rest}")
    assert list(load_summaries(paths, Selection("video"))) == expected


def test_a_first_line_that_promises_other_samples_than_there_are_is_found_out(paths):
    index_shards(paths)
    file = paths[0] + INDEX_SUFFIX
    with open(file) as stored:
        text = stored.read()
    with open(file, "w") as stored:
        stored.write(text.replace('"samples":2,', '"samples":1,'))
    found = ShardSet(paths[0], "video")
    with pytest.raises(SampleError, match="contradicts itself"):
        found.read(0, 0)


def test_many_new_shards_are_indexed_by_processes(tools, tmp_path, monkeypatch):
    members = [("a.mp4", b"a"), ("a.txt", b"one")]
    paths = [str(tools.write_tar(tmp_path / f"{n}.tar", members)) for n in range(5)]
    (tmp_path / "folder.tar").mkdir()
    index_shards(paths[:1])
    before = (tmp_path / f"0.tar{INDEX_SUFFIX}").stat().st_mtime_ns
    monkeypatch.setattr(index_files, "_FEW", 1)
    monkeypatch.setattr(index_files.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(index_files, "load_index", lambda path: pytest.fail("not in this process"))
    index_shards([*paths, str(tmp_path / "folder.tar")])
    assert (tmp_path / f"0.tar{INDEX_SUFFIX}").stat().st_mtime_ns == before
    assert [s.samples for s in load_summaries(paths, Selection("video"))] == [1] * 5
