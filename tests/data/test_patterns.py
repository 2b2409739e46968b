import pytest

from vmm.data.patterns import (
    common_folder,
    expand_shards,
    expand_urls,
    is_remote,
    missing_shards,
    short_names,
    some_shards,
)


@pytest.fixture
def four_files(tmp_path, monkeypatch):
    for name in ("a/0.tar", "a/1.tar", "a/2.tar", "b/0.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    # What img2dataset and vmm itself put beside a shard.
    for name in ("b/0.parquet", "b/0_stats.json", "b/0.tar.index.json"):
        (tmp_path / name).write_bytes(b"{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("a/1.tar", ["a/1.tar"]),
        ("a/{0..2}.tar", ["a/0.tar", "a/1.tar", "a/2.tar"]),
        ("a/{2,0}.tar", ["a/2.tar", "a/0.tar"]),
        ("*/0.tar", ["a/0.tar", "b/0.tar"]),
        ("{b,a}/*.tar", ["b/0.tar", "a/0.tar", "a/1.tar", "a/2.tar"]),
        (["b/*.tar", "a/0.tar"], ["b/0.tar", "a/0.tar"]),
        ("$VMM_TEST_ROOT/{0..1}.tar", ["a/0.tar", "a/1.tar"]),
        ("${VMM_TEST_ROOT}/0.tar", ["a/0.tar"]),
        ("b", ["b/0.tar"]),
        ("./{b,a}/", ["./b/0.tar", "./a/0.tar", "./a/1.tar", "./a/2.tar"]),
        ("b/*", ["b/0.tar"]),
    ],
)
def test_patterns(four_files, monkeypatch, patterns, expected):
    monkeypatch.setenv("VMM_TEST_ROOT", "a")
    assert expand_shards(patterns) == expected


@pytest.mark.parametrize("pattern", ["c/0.tar", "a/x-*.tar", "a/{7..9}.tar", "c", ""])
def test_a_pattern_without_files_is_named(four_files, pattern):
    with pytest.raises(ValueError, match="matches no file") as caught:
        expand_shards(["a/0.tar", pattern])
    assert repr(pattern) in str(caught.value)


def test_a_missing_variable_is_named(four_files, monkeypatch):
    monkeypatch.delenv("VMM_TEST_ROOT", raising=False)
    with pytest.raises(ValueError, match="environment variable VMM_TEST_ROOT"):
        expand_shards("$VMM_TEST_ROOT/0.tar")


def test_gaps_are_named_and_repeats_logged(four_files, caplog):
    assert expand_shards(["a", "a/0.tar"], quiet=True) == ["a/0.tar", "a/1.tar", "a/2.tar"]
    assert not caplog.messages
    assert expand_shards(["a/{0..5}.tar", "a/0.tar"]) == ["a/0.tar", "a/1.tar", "a/2.tar"]
    assert caplog.messages == ["named more than once and read once: a/0.tar"]
    assert missing_shards(["a/{0..5}.tar", "b/*"]) == ["a/3.tar", "a/4.tar", "a/5.tar"]


def test_many_shards_are_named_in_part():
    assert some_shards(["a", "b"]) == "a, b"
    assert some_shards(list("abcd")) == "a, b, c and 1 other"
    assert some_shards(list("abcde")) == "a, b, c and 2 others"


def test_short_names_tell_shards_apart_without_showing_the_machine():
    paths = ["/data/x/0.tar", "/data/y/0.tar"]
    assert common_folder(paths) == "/data" and common_folder(paths[:1]) == "/data/x"
    assert short_names(paths, "/data") == ["x/0", "y/0"]
    assert short_names(paths[:1], "/data/x") == ["0"]


@pytest.mark.parametrize(
    ("pattern", "remote"),
    [
        ("s3://bucket/{0..2}.tar", True),
        ("https://host/a.tar", True),
        ("pipe:cat a.tar", True),
        ("data/a.tar", False),
        ("/data/s3:/a.tar", False),
        ("C:/a.tar", False),
    ],
)
def test_urls_and_commands_are_told_from_paths(pattern, remote):
    assert is_remote(pattern) is remote


def test_urls_expand_without_being_looked_for(four_files, monkeypatch):
    monkeypatch.setenv("BUCKET", "s3://b")
    urls = expand_urls(["$BUCKET/{0..1}.tar", "pipe:cat {x,y}.tar", "b/*"])
    assert urls == ["s3://b/0.tar", "s3://b/1.tar", "pipe:cat x.tar", "pipe:cat y.tar", "b/0.tar"]


def test_a_path_that_exists_is_itself_whatever_is_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["set [v2]/a{0..1}.tar", "set [v2]/[b].tar", "set [v2]/$c.tar", "x*/d.tar"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in names:
        assert expand_shards(name) == [name] and missing_shards(name) == []
    inside = sorted(names[:3])
    assert expand_shards("set [v2]") == expand_shards("set [v2]/*.tar") == inside
    (tmp_path / "set [v2]/deep").mkdir()
    (tmp_path / "set [v2]/deep/e.tar").write_bytes(b"")
    assert expand_shards("set [v2]/*/e.tar") == ["set [v2]/deep/e.tar"]
    assert expand_shards("[xyz]*/d.tar") == ["x*/d.tar"]  # a wildcard where no such file is


@pytest.mark.parametrize(
    ("name", "pattern", "program"),
    [
        ("a.tar.gz", "a.tar.gz", "gunzip"),
        ("a.tar.gz", "a.tar", "gunzip"),
        ("a.tar.gz", "*.tar", None),
        ("a.tar.gz", "*.tar.gz", "gunzip"),
        ("a.tar.gz", ".", "gunzip"),
        ("a-3.tgz", "a-{0..3}.tgz", "gunzip"),
        ("a.tar.xz", "*", "unxz"),
        ("a.tar.zst", "a.tar.zst", "unzstd"),
    ],
)
def test_a_compressed_shard_says_how_to_unpack_it(tmp_path, monkeypatch, name, pattern, program):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"packed")
    expected = f"unpack it to .tar: `{program} " if program else "matches no file"
    with pytest.raises(ValueError, match=expected):
        expand_shards(pattern)
