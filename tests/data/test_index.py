import io
import json
import logging
import os
import tarfile

import pytest

from vmm.data.faults import BadSamples
from vmm.data.index import scan_shard
from vmm.data.index_files import INDEX_SUFFIX, load_index, load_indexes
from vmm.data.resampled import read_stream


def members(*keys):
    return [
        member
        for key in keys
        for member in ((f"{key}.mp4", key.encode() * 100), (f"{key}.txt", b"a caption"))
    ]


@pytest.fixture
def shard(tools, tmp_path):
    return tools.write_tar(tmp_path / "a.tar", members("a", "b", "c"))


def test_offsets_lead_to_the_content(shard):
    index = scan_shard(str(shard))
    data = shard.read_bytes()
    assert [entry.key for entry in index.entries] == ["a", "b", "c"]
    assert index.damage is None and not index.ignored
    for entry in index.entries:
        offset, size = entry.members["mp4"]
        assert data[offset : offset + size] == entry.key.encode() * 100
        assert entry.captioned


def test_dots_in_names_do_not_merge_samples(tools, tmp_path):
    shard = tools.write_tar(tmp_path / "a.tar", members("clip_1.5s", "clip_1.7s"))
    assert [e.key for e in scan_shard(str(shard)).entries] == ["clip_1.5s", "clip_1.7s"]


def test_interleaved_members_make_whole_samples(tools, tmp_path):
    mixed = sorted(members("a", "b"), key=lambda member: member[0][-3:])
    index = scan_shard(str(tools.write_tar(tmp_path / "a.tar", mixed)))
    assert [set(e.members) for e in index.entries] == [{"mp4", "txt"}] * 2


@pytest.mark.parametrize(
    ("extra", "captioned"),
    [
        ([("a.txt", b"hi")], True),
        ([("a.txt", b" \n")], False),
        ([("a.txt", b""), ("a.json", b'{"caption": "hi"}')], True),
        ([("a.json", b'{"caption": ["", "hi"]}')], True),
        ([("a.json", b'{"caption": null}')], False),
        ([("a.json", b"{broken")], False),
        ([], False),
    ],
)
def test_captions_are_looked_for_when_indexing(tools, tmp_path, extra, captioned):
    shard = tools.write_tar(tmp_path / "a.tar", [("a.mp4", b"x"), *extra])
    assert scan_shard(str(shard)).entries[0].captioned is captioned


def test_links_and_strange_names_are_no_samples(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("b.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("../../up.mp4", "/abs.txt", "readme", "a.mp4", "a.mp4"):
            header = tarfile.TarInfo(name)
            header.size = 2
            tar.addfile(header, io.BytesIO(b"hi"))
    index = scan_shard(str(path))
    # Names are only ever keys; "../../up" names no file.
    assert [entry.key for entry in index.entries] == ["../../up", "/abs", "a"]
    assert index.ignored == [
        ("b.mp4", "not part of a sample"),
        ("readme", "not part of a sample"),
        ("a.mp4", "repeated name"),
    ]
    assert not (tmp_path.parent.parent / "up.mp4").exists()


def damage_at(data, offset, replacement):
    return data[:offset] + replacement + data[offset + len(replacement) :]


def size_field(value):
    """A tar header's size in base 256, which allows what octal does not."""
    return b"\x80" + value.to_bytes(11, "big") if value >= 0 else b"\xff" + b"\xff" * 11


# Members a.mp4 (header 0, data 512), a.txt (1024, 1536), b.mp4 (2048, 2560), b.txt (3072, 3584).
@pytest.mark.parametrize(
    ("change", "whole"),
    [
        (lambda d: d[:2600], ["a"]),  # inside a payload
        (lambda d: d[:2048], ["a"]),  # at the border of two members
        (lambda d: d[:2300], ["a"]),  # inside a header
        (lambda d: damage_at(d, 2048 + 10, b"\x07"), ["a"]),  # checksum of a header is wrong
        (lambda d: damage_at(d, 4096, bytes(512)), ["a", "b"]),  # a header overwritten by zeros
        (lambda d: d[:0], []),
        (lambda d: b"<html>" + d[:3000], []),
    ],
    ids=["payload", "border", "header", "checksum", "zeros", "empty", "html"],
)
def test_damaged_shards_say_so_and_keep_whole_samples(shard, change, whole):
    shard.write_bytes(change(shard.read_bytes()))
    index = scan_shard(str(shard))
    assert index.damage
    assert [e.key for e in index.entries if {"mp4", "txt"} == set(e.members)] == whole


@pytest.mark.parametrize("size", [2**62, 5 * 2**30, -1])
def test_impossible_sizes_do_not_hang(shard, size):
    header = bytearray(shard.read_bytes()[2048 : 2048 + 512])
    header[124:136] = size_field(size)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    shard.write_bytes(damage_at(shard.read_bytes(), 2048, bytes(header)))
    index = scan_shard(str(shard))
    assert index.damage and [entry.key for entry in index.entries] == ["a"]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_thousands_of_long_names_in_a_row_are_damage(tools, tmp_path, kind):
    text = b"14 path=b.mp4\n" if kind in b"xg" else b"b.mp4\0"
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, len(text)
    name = header.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(tools.write_tar_bytes(members("a"))[:2048] + name * 2000 + bytes(1024))
    index = scan_shard(str(path))
    assert [e.key for e in index.entries] == ["a"] and "RecursionError" in index.damage
    pytest.importorskip("webdataset.gopen", reason="webdataset is not installed")
    bad = BadSamples(str(tmp_path / "bad.jsonl"))
    assert not list(read_stream(str(path), "video", bad))  # nobody knows if the sample was whole
    assert "damaged shard" in (tmp_path / "bad.jsonl").read_text()


def test_compressed_tars_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    assert scan_shard(str(path)).damage


def test_the_index_is_kept_and_used(shard, monkeypatch):
    first = load_index(str(shard))
    stored = shard.with_name(shard.name + INDEX_SUFFIX)
    assert stored.is_file()
    monkeypatch.setattr(
        "vmm.data.index_files.scan_shard", lambda path: pytest.fail("scanned again")
    )
    assert load_index(str(shard)) == first
    assert sorted(p.name for p in shard.parent.iterdir()) == ["a.tar", "a.tar.index.json"]


@pytest.mark.parametrize("stored", [b"", b"[]", b"{}", b'{"stamp": 1}', b"\xff"])
def test_a_useless_stored_index_is_replaced(shard, stored):
    path = shard.with_name(shard.name + INDEX_SUFFIX)
    path.write_bytes(stored)
    assert len(load_index(str(shard)).entries) == 3
    assert len(json.loads(path.read_bytes())["entries"]) == 3


@pytest.mark.parametrize(
    "place", [[-1, 5], [0, -5], [0, 2**40], [2**40, 5], ["a", 5], [0], None, {}, [0, 20_000]]
)
def test_a_stored_index_with_impossible_places_is_replaced(shard, place):
    good = load_index(str(shard))
    path = shard.with_name(shard.name + INDEX_SUFFIX)
    content = json.loads(path.read_bytes())
    content["entries"][1][2]["mp4"] = place
    path.write_text(json.dumps(content))
    assert load_index(str(shard)) == good
    assert json.loads(path.read_bytes())["entries"][1][2]["mp4"] != place


def test_captions_and_metadata_have_a_largest_size(tools, tmp_path):
    texts = [("a.txt", b"a" * 2**16), ("b.txt", b"b" * (2**16 + 1)), ("c.json", b" " * 2**23)]
    index = scan_shard(str(tools.write_tar(tmp_path / "a.tar", texts)))
    assert [(e.key, sorted(e.members)) for e in index.entries] == [
        ("a", ["txt"]), ("b", []), ("c", []),
    ]  # fmt: skip
    assert index.ignored == [("b.txt", "too large"), ("c.json", "too large")]


def test_failed_downloads_say_why_and_sound_is_passed_over(tools, tmp_path):
    members = [
        ("00000000.mp4", b"x"), ("00000000.txt", b"good"), ("00000000.m4a", b"sound"),
        ("00000001.txt", b"gone"),
        ("00000001.json", b'{"status": "failed_to_download", "error_message": "HTTP 404"}'),
        ("00000002_00000.mp4", b"x"), ("00000002_00000.json", b'{"caption_3": "a clip"}'),
    ]  # fmt: skip
    index = scan_shard(str(tools.write_tar(tmp_path / "a.tar", members)))
    assert [(e.key, e.captioned, e.failure) for e in index.entries] == [
        ("00000000", True, ""),
        ("00000001", True, "failed_to_download: HTTP 404"),
        ("00000002_00000", True, ""),
    ]
    assert not index.ignored


def test_twins_from_a_mac_are_no_samples_and_do_not_tear_others_apart(tools, tmp_path):
    twin = b"\0\5\x16\7\0\2\0\0Mac OS X        "
    names = ["._a.mp4", "a.mp4", "__MACOSX/._a.txt", "a.txt", "./._b.mp4", "b.mp4", ".DS_Store"]
    written = [(n, twin if "._" in n or "DS" in n else b"a caption") for n in names]
    index = scan_shard(str(tools.write_tar(tmp_path / "a.tar", written)))
    assert [(e.key, sorted(e.members)) for e in index.entries] == [
        ("a", ["mp4", "txt"]), ("b", ["mp4"]),
    ]  # fmt: skip
    assert {reason for _, reason in index.ignored} == {"left by a system"}
    assert [name for name, _ in index.ignored] == [names[i] for i in (0, 2, 4, 6)]


def test_captions_that_are_no_text_say_why(tools, tmp_path):
    written = [
        ("a.mp4", b"x"), ("a.txt", b"caf\xe9"),
        ("b.mp4", b"x"), ("b.txt", "a dog".encode("utf-16-le")),
        ("c.mp4", b"x"), ("c.txt", "a dog".encode("utf-16")),
        ("d.mp4", b"x"), ("d.txt", b"caf\xe9"), ("d.json", b'{"caption": "a cafe"}'),
        ("e.mp4", b"x"), ("e.txt", b" "), ("e.json", b'{"caption": "caf\xe9"}'),
    ]  # fmt: skip
    entries = scan_shard(str(tools.write_tar(tmp_path / "a.tar", written))).entries
    assert [entry.captioned for entry in entries] == [False, False, True, True, False]
    assert "not UTF-8" in entries[0].failure and "NUL" in entries[1].failure
    assert not entries[2].failure and not entries[3].failure
    assert "not UTF-8" in entries[4].failure


def test_an_index_of_an_older_version_is_made_anew(shard):
    good = load_index(str(shard))
    path = shard.with_name(shard.name + INDEX_SUFFIX)
    content = json.loads(path.read_bytes())
    content["stamp"][0] -= 1
    content["entries"] = []
    path.write_text(json.dumps(content))
    assert load_index(str(shard)) == good


def test_a_shard_that_cannot_be_opened_has_no_samples(tmp_path):
    (tmp_path / "a.tar").mkdir()
    for name in ("a.tar", "b.tar"):
        index = load_index(str(tmp_path / name))
        assert not index.entries and index.stamp is None and index.damage


def test_a_changed_shard_is_indexed_again(shard, tools):
    load_index(str(shard))
    tools.write_tar(shard, members("a", "d", "e", "f"))
    assert [e.key for e in load_index(str(shard)).entries] == ["a", "d", "e", "f"]
    same_size = members("a", "d", "e", "g")
    tools.write_tar(shard, same_size)
    os.utime(shard, ns=(1, 1))
    assert [e.key for e in load_index(str(shard)).entries] == ["a", "d", "e", "g"]


def test_a_folder_that_cannot_be_written_is_no_error(shard, monkeypatch, caplog):
    def refuse(self, *arguments):
        raise PermissionError("read-only")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with caplog.at_level(logging.INFO):
        assert [len(i.entries) for i in load_indexes([str(shard)])] == [3]
    assert "read-only" in caplog.text
