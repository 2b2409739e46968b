import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.search.test_duplicates import filled, unit
from vmm.search import approximate, parts
from vmm.search.approximate import (
    FILE,
    Lists,
    make_lists,
    read_lists,
    size_of_lists,
    verify_lists,
)
from vmm.search.parts import Record
from vmm.search.query import Searcher
from vmm.search.sources import Source
from vmm.whole import PARTIAL

WIDTH = 24


def collection(videos=300, seed=0):
    """Videos of five moments around one of forty centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, WIDTH))
    return {
        f"{seed}-{i:03d}": centres[i % 40] + 0.4 * rng.standard_normal((5, WIDTH))
        for i in range(videos)
    }


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Compare a query with so few moments that lists matter in small collections."""
    monkeypatch.setattr(approximate, "_LEAST", 160)


@pytest.fixture
def index(new_index):
    """Many videos in one part, then some in parts of their own."""
    index = new_index()
    videos = collection()
    names, rows = list(videos), unit(np.concatenate(list(videos.values()))).astype(np.float32)
    records = [Record(f"/v/{n}", "", digest=n, count=5, done=True) for n in names]
    index.add(records, [(float(i), i + 1.0) for i in range(5)] * len(names), list(rows))
    return filled(index, collection(6, seed=1))


def queries(count=50, seed=2):
    rows = np.concatenate(list(collection(count, seed=0).values()))[::5]
    noise = np.random.default_rng(seed).standard_normal(rows.shape)
    return unit(rows + 0.3 * noise).astype(np.float32)


def recall(searcher, exact):
    shares = []
    for query in queries():
        wanted, found = exact.search(query, 10), searcher.search(query, 10)
        best = {(hit.source, hit.start) for hit in wanted}
        shares.append(len(best & {(hit.source, hit.start) for hit in found}) / 10)
        theirs = {(hit.source, hit.start): hit.similarity for hit in wanted}
        for hit in found:  # to the last bit: a vector's product does not depend on its place
            assert hit.similarity == theirs.get((hit.source, hit.start), hit.similarity)
    return float(np.mean(shares))


def test_lists_find_nearly_all_and_all_lists_find_all(index, encoder, monkeypatch):
    make_lists(index)
    exact = Searcher(index, encoder)
    searcher = Searcher(index, encoder, approximate=True)
    lists = searcher._lists
    assert len(lists.rows) == index.num_moments == size_of_lists(index)[0] == 1530
    looked_at = [len(lists.near(query)[0]) for query in queries()]
    assert max(looked_at) < 0.5 * index.num_moments
    assert recall(searcher, exact) > 0.9
    monkeypatch.setattr(type(lists), "probes", len(lists.centroids))
    for query in queries(20):
        assert searcher.search(query, 10) == exact.search(query, 10)


def test_lists_have_the_vectors_of_their_moments_one_after_the_other(index, monkeypatch):
    monkeypatch.setattr(parts, "_BLOCK", 100)  # many blocks
    moments = index.moments()
    make_lists(index)
    lists = read_lists(index, moments)
    table = np.concatenate(moments.vectors)
    assert np.array_equal(lists.vectors, table[lists.rows])
    assert np.array_equal(np.sort(lists.rows), np.arange(len(table)))
    nearest = (table[lists.rows] @ lists.centroids.T).argmax(1)
    of = np.repeat(np.arange(len(lists.centroids)), np.diff(lists.starts))
    assert (nearest == of).mean() > 0.99
    rows, pieces = lists.near(table[7])
    assert 7 in rows and np.array_equal(np.concatenate(pieces), table[rows])


def test_a_query_looks_at_some_moments_at_least(index, encoder, monkeypatch):
    make_lists(index)
    lists = Searcher(index, encoder, approximate=True)._lists
    few = np.mean([len(lists.near(query)[0]) for query in queries()])
    assert 100 < few < 300
    monkeypatch.setattr(approximate, "_LEAST", 8192)
    assert {len(lists.near(query)[0]) for query in queries()} == {1530}
    monkeypatch.setattr(approximate, "_LEAST", 192)  # an eighth of the moments and more
    assert {len(lists.near(query)[0]) for query in queries()} == {1530}


def test_lists_are_left_alone_where_all_moments_are_few(index, encoder, monkeypatch):
    make_lists(index)
    searcher = Searcher(index, encoder, approximate=True)
    looked = []
    near = Lists.near
    monkeypatch.setattr(Lists, "near", lambda *args: looked.append(1) or near(*args))
    wanted = Searcher(index, encoder).search(queries()[0], 10)
    for least, times in ((160, 1), (8192, 0)):
        monkeypatch.setattr(approximate, "_LEAST", least)
        looked.clear()
        found = searcher.search(queries()[0], 10)
        assert len(looked) == times
    assert found == wanted


def test_what_came_later_is_compared_in_full(index, encoder):
    make_lists(index)
    late = {"late": queries(3)}
    filled(index, late)
    index.add([], [], [], removed=[Source(Path("/v/0-000"))])
    index.reload()
    searcher = Searcher(index, encoder, approximate=True)
    assert size_of_lists(index)[0] == 1525
    for number, query in enumerate(late["late"]):
        hit = searcher.search(query, 1)[0]
        assert (hit.source.path.name, hit.start) == ("late", float(number))
    found = {h.source.path.name for q in queries() for h in searcher.search(q, 20)}
    assert "0-000" not in found


def test_filters_that_leave_too_little_in_the_lists_look_at_all(index, encoder):
    make_lists(index)
    exact = Searcher(index, encoder)
    searcher = Searcher(index, encoder, approximate=True)
    among = np.zeros(len(searcher.owner), np.bool_)
    among[::50] = True
    query = queries()[0]
    assert searcher.search(query, 8, among) == exact.search(query, 8, among)
    with pytest.raises(ValueError, match="NaN"):
        searcher.search(np.full(WIDTH, np.nan, np.float32))


def test_lists_of_other_parts_are_noticed(index, encoder):
    with pytest.raises(ValueError, match=r"has no approximate.safetensors; `vmm index .*makes"):
        Searcher(index, encoder, approximate=True)
    make_lists(index)
    index.compact()  # the same moments in a part of another name
    assert size_of_lists(index)[0] == 0
    with pytest.raises(ValueError, match=r"knows 0 of 1530 moments; .*makes it again"):
        Searcher(index, encoder, approximate=True)
    make_lists(index)
    assert recall(Searcher(index, encoder, approximate=True), Searcher(index, encoder)) > 0.9


def test_whatever_comes_and_goes_nothing_outdated_is_found(index, encoder, monkeypatch):
    """Videos come, change and go at random; found is what is there, with its cosine."""
    monkeypatch.setattr(approximate, "_LEAST", 60)
    rng = np.random.default_rng(4)
    make_lists(index)
    looked, near = [], Lists.near
    monkeypatch.setattr(Lists, "near", lambda *args: looked.append(1) or near(*args))
    now = {source.path.name: v.record.digest for source, v in index.videos.items()}
    for step in range(12):
        names = rng.choice(sorted(now), 20, replace=False)
        gone, other = names[:10], names[10:]
        index.add([], [], [], removed=[Source(Path(f"/v/{name}")) for name in gone])
        now = {name: digest for name, digest in now.items() if name not in gone}
        new = {name: unit(rng.standard_normal((5, WIDTH))) for name in [*other, f"new-{step}"]}
        now |= {name: f"{name} of {step}" for name in new}
        filled(index, new, now)
        if step == 6:
            index.compact()
            make_lists(index)
        exact, searcher = Searcher(index, encoder), Searcher(index, encoder, approximate=True)
        every = {(h.source, h.start): h for h in exact.search(queries()[0], 10_000)}
        assert {source.path.name for source, _ in every} == set(now)
        for query in queries(6, seed=step):
            every = {(h.source, h.start): h for h in exact.search(query, 10_000)}
            assert all(every[h.source, h.start] == h for h in searcher.search(query, 30))
        for vectors in new.values():
            (hit,) = searcher.search(vectors[3].astype(np.float32), 1)
            assert hit.similarity == pytest.approx(1) and now[hit.source.path.name] in {
                f"{name} of {step}" for name in new
            }
    assert len(looked) > 200


def test_vectors_that_are_not_those_of_the_parts_are_never_answers(index, encoder):
    path = make_lists(index)
    assert not verify_lists(index)
    tables = load_file(path)
    found = Searcher(index, encoder, approximate=True).search(queries()[0], 10)
    for change in (lambda v: v[::-1].copy(), lambda v: v * np.float32(1.01)):
        save_file(tables | {"vectors": change(tables["vectors"])}, path)
        searcher = Searcher(index, encoder, approximate=True)
        with pytest.raises(ValueError, match=r"its vectors are not those of the parts; .*again"):
            searcher.search(queries()[0], 10)
        assert "its checksum is another one; `vmm index" in verify_lists(index)[0]
    save_file(tables | {"vectors": tables["vectors"] * np.nan}, path)
    searcher = Searcher(index, encoder, approximate=True)
    with pytest.raises(ValueError, match=r"a vector in it holds NaN or infinity; .*again"):
        searcher.search(queries()[0], 10)
    make_lists(index)
    assert Searcher(index, encoder, approximate=True).search(queries()[0], 10) == found


def test_what_a_killed_process_left_goes_and_two_processes_do_not_write_at_once(index):
    left = index.folder / f".{FILE}.0123abcd-1{PARTIAL}"
    left.write_bytes(b"half")
    with (index.folder / "index.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process makes the lists of"):
            make_lists(index)
        assert left.exists() and size_of_lists(index)[0] == 0
    make_lists(index)
    assert not left.exists() and size_of_lists(index)[0] == 1530
    assert {path.name for path in index.folder.iterdir()} == {"index.json", "parts", FILE}


def test_a_drive_without_locks_does_without(index, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    make_lists(index)
    assert size_of_lists(index)[0] == 1530


def wrong_files(tables):
    """What somebody may have put there."""
    starts = tables["starts"].copy()
    i = 1 + np.flatnonzero(np.diff(starts[1:-1]))[0]
    starts[[i, i + 1]] = starts[[i + 1, i]]
    yield tables | {"starts": starts}
    yield tables | {"centroids": tables["centroids"][:, :-1].copy()}
    yield tables | {"centroids": np.full_like(tables["centroids"], np.nan)}
    yield tables | {"centroids": tables["centroids"][:0], "starts": tables["starts"][:1]}
    yield tables | {"rows": tables["rows"] + 1}
    yield tables | {"rows": tables["rows"] - 1}
    yield tables | {"rows": np.zeros_like(tables["rows"])}
    yield tables | {"rows": tables["rows"].astype(np.float32)}
    yield tables | {"starts": tables["starts"][::-1].copy()}
    yield tables | {"starts": tables["starts"] * 1000}
    yield {name: table for name, table in tables.items() if name != "starts"}
    yield {name: table for name, table in tables.items() if name != "vectors"}  # of older vmm
    yield tables | {"vectors": tables["vectors"][:-1].copy()}
    yield tables | {"vectors": tables["vectors"].astype(np.float16)}
    for content in (b"", b"[[1]]", b"7", b'[["x", -5]]', b'[["x", 1e300]]', b"[" * 5000):
        yield tables | {"parts": np.frombuffer(content, np.uint8)}


def test_damaged_lists_are_named_with_the_remedy(index):
    path = make_lists(index)
    whole, tables, moments = path.read_bytes(), load_file(path), index.moments()
    assert json.loads(tables["parts"].tobytes())[0][1] == 1500
    for content in (b"", b"x" * 100, whole[:-9], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{FILE} is damaged: .*makes it again"):
            read_lists(index, moments)
    for wrong in wrong_files(tables):
        save_file(wrong, path)
        with pytest.raises(ValueError, match=rf"{FILE} is damaged: .*makes it again"):
            read_lists(index, moments)
    path.write_bytes(whole)
    assert read_lists(index, moments).num_listed == 1530


def test_lists_of_any_width_and_number_are_read(new_index):
    for width, videos in ((1, 9), (25, 24), (24, 24), (7, 31)):
        index = new_index(f"{width}-{videos}", embedding_dim=width)
        made = {str(n): np.random.default_rng(n).standard_normal((5, width)) for n in range(videos)}
        make_lists(filled(index, made))
        lists = read_lists(index, index.moments())
        table = np.concatenate(index.moments().vectors)
        assert np.array_equal(lists.vectors, table[lists.rows]) and len(table) == 5 * videos
        assert lists.starts.flags.aligned and lists.vectors.flags.aligned


def test_an_empty_index_has_no_lists(new_index):
    with pytest.raises(ValueError, match="holds no moments"):
        make_lists(new_index())
