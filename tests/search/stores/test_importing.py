"""Vectors come back as the index that they were, and nothing that a file says is trusted."""

import io
import json
import os
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from vmm.cli import main
from vmm.search.index import Index
from vmm.search.parts import Record
from vmm.search.query import Searcher
from vmm.search.stores import importing, numpy_file, parquet_file, table
from vmm.search.stores.table import table_of

MODULES = {"npz": numpy_file, "parquet": parquet_file}


@pytest.fixture(params=[7, 16_384])
def chunk(request, monkeypatch):
    for module in (table, numpy_file, parquet_file):
        monkeypatch.setattr(module, "CHUNK", request.param)


@pytest.fixture(params=list(MODULES))
def kind(request):
    return request.param


def exported(index, path):
    MODULES[path.suffix[1:]].write(table_of(index), path)
    return path


def imported(path, out):
    normalised = importing.import_vectors(MODULES[path.suffix[1:]].read(path), out)
    return Index.open(out), normalised


def contents(index):
    moments = index.moments()
    vectors = np.concatenate(moments.vectors)
    found = {}
    for number, source in enumerate(moments.videos):
        rows = np.flatnonzero(moments.owner == number)
        record = index.videos[source].record
        found[source] = (record, moments.spans[rows].tolist(), vectors[rows].tobytes())
    return found


def test_an_index_comes_back_bit_for_bit(chunk, kind, filled, encoder, tmp_path):
    filled.add([Record("/s.tar", os.fsdecode(b"\xe9.mp4"), 5, 6, "d", 2.5, 0, 1, True, "cut")],
               [(0.5, 2.5)], [np.eye(24, dtype=np.float32)[3]])  # fmt: skip
    filled = Index.open(filled.folder)
    back, normalised = imported(exported(filled, tmp_path / f"v.{kind}"), tmp_path / "back")
    assert normalised == 0 and back.settings == filled.settings
    assert contents(back) == contents(filled) and back.verify()[-1].endswith("forgets it")
    query = np.random.default_rng(1).standard_normal(24).astype(np.float32)
    found, expected = (Searcher(index, encoder).search(query, 50) for index in (back, filled))
    assert [(h.source, h.start) for h in found] == [(h.source, h.start) for h in expected]


def test_the_encoder_is_kept_and_checked(
    videos, encoder_folder, another_encoder_folder, tmp_path, capsys
):
    run = lambda *words: main([str(word) for word in words])  # noqa: E731
    quick = ("--window", 1, "--stride", 0.5)
    index, back = tmp_path / "index", tmp_path / "back"
    assert run("encode", videos, "-o", index, "--encoder", encoder_folder, *quick) == 0
    file = tmp_path / "v.parquet"
    assert run("vectors", "export", index, file) == 0
    other = ("--encoder", another_encoder_folder)
    assert run("vectors", "import", file, back, *other) == 2
    assert "the vectors were made with the encoder" in capsys.readouterr().err
    assert not back.exists()
    assert run("vectors", "import", file, back, "--encoder", encoder_folder) == 0
    assert f"{back} has 10 moments of 3 videos" in capsys.readouterr().out
    assert run("search", back, "a red circle", "--json") == 0
    found = capsys.readouterr().out
    assert run("search", index, "a red circle", "--json") == 0
    assert capsys.readouterr().out == found and json.loads(found)
    assert run("search", back, "x", *other) == 2
    assert "their vectors cannot be compared" in capsys.readouterr().err
    assert run("encode", videos, "-o", back) == 0
    assert "0 videos encoded, 0 known by their content, 3 unchanged" in capsys.readouterr().out
    assert run("vectors", "import", file, back) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def edited(path, change):
    """Change a Parquet file as people do, who keep the schema's metadata."""
    old = parquet.read_table(path)
    new = change(old)
    parquet.write_table(new.replace_schema_metadata(old.schema.metadata), path)
    return path


def test_rows_that_are_left_out_make_their_video_encoded_anew(chunk, filled, tmp_path):
    path = exported(filled, tmp_path / "v.parquet")
    before = contents(filled)
    first, second, *_ = filled.moments().videos
    edited(path, lambda t: t.filter(pa.compute.greater(t["video"], 0)).slice(1))
    back, _ = imported(path, tmp_path / "back")
    after = contents(back)
    assert first not in after and set(after) == set(before) - {first}
    record, spans, _ = after.pop(second)
    assert record.digest == "" and spans == before[second][1][1:]
    assert all(after[source] == before[source] for source in after)


def test_vectors_of_another_length_are_normalised_in_words(chunk, filled, tmp_path, capsys):
    path = exported(filled, tmp_path / "v.parquet")

    def longer(t):
        vectors = np.stack(t["vector"].to_numpy())
        vectors[5:8] *= 3
        column = pa.array(list(vectors.astype(np.float64)), pa.list_(pa.float64()))
        return t.set_column(t.column_names.index("vector"), "vector", column)

    edited(path, longer)
    assert main(["vectors", "import", str(path), str(tmp_path / "back")]) == 0
    assert "3 vectors were not of length 1, and normalised" in capsys.readouterr().out
    whole = imported(exported(filled, tmp_path / "w.npz"), tmp_path / "whole")[0]
    back, whole = (
        np.concatenate(index.moments().vectors) for index in (Index.open(tmp_path / "back"), whole)
    )
    assert np.allclose(back, whole, atol=1e-6) and np.allclose(np.linalg.norm(back, axis=1), 1)


def wider(t):
    vectors = np.ones((t.num_rows, 25), np.float32)
    return with_vectors(t, pa.array(list(vectors), pa.list_(pa.float32(), 25)))


def ragged(t):
    vectors = [np.ones(24 if i else 25, np.float32) for i in range(t.num_rows)]
    return with_vectors(t, pa.array(vectors, pa.list_(pa.float32())))


def with_vectors(t, column):
    return t.set_column(t.column_names.index("vector"), "vector", column)


def with_value(value):
    def change(t):
        vectors = np.stack(t["vector"].to_numpy())
        vectors[3] = value
        return with_vectors(t, pa.array(list(vectors), pa.list_(pa.float32(), 24)))

    return change


def column(name, values, kind=None):
    return lambda t: t.set_column(
        t.column_names.index(name), name, pa.array(values(t[name].to_pylist()), kind)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wider, "its vectors are 25 wide, its encoder's 24"),
        (ragged, "a vector is not 24 wide"),
        (with_value(np.nan), "a vector that holds NaN or infinity"),
        (with_value(0), "a vector of zeros, which has no direction"),
        (lambda t: t.drop_columns(["vector"]), "no column 'vector'"),
        (lambda t: t.take(list(range(t.num_rows))[::2] + list(range(t.num_rows))[1::2]),
         "are not together; sort the table by its column id"),
        (column("video", lambda v: [999, *v[1:]], pa.int32()), "a moment is of none of its"),
        (column("video", lambda v: [-1, *v[1:]], pa.int64()), "a moment is of none of its"),
        (column("video", lambda v: [2**33, *v[1:]], pa.int64()), "a moment is of none of its"),
        (column("video", lambda v: [None, *v[1:]], pa.int32()), "holds no vectors of vmm"),
        (column("video", lambda v: list(map(str, v))), "no column 'video' of numbers"),
        (column("start", lambda v: [9.0, *v[1:]]), "has no start before its end"),
        (column("start", lambda v: [None, *v[1:]]), "lacks its vector or its times"),
        (column("end", lambda v: [float("inf"), *v[1:]]), "has no start before its end"),
    ],
)  # fmt: skip
def test_tables_that_make_no_index_are_refused(filled, tmp_path, capsys, change, message):
    path = edited(exported(filled, tmp_path / "v.parquet"), change)
    assert main(["vectors", "import", str(path), str(tmp_path / "back")]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.count("\n") == 1
    assert not (tmp_path / "back").exists() and not list(tmp_path.glob(".*partial*"))


def about(**changes):
    def change(content):
        for where, value in changes.items():
            if where == "videos":
                content["videos"][0].update(value)
            elif where == "twice":
                content["videos"][1] = {
                    **content["videos"][1],
                    "path": content["videos"][0]["path"],
                }
            elif where == "version":
                content["vmm_vectors"] = value
            else:
                content["settings"][where] = value
        return content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (about(version=2), "another version of vmm"),
        (about(window=-1), "must be positive"),
        (about(window=float("nan")), "must be positive"),
        (about(fingerprint=3), "fingerprint or encoder is no text"),
        (about(embedding_dim=10**12), "holds no vectors"),
        (about(embedding_dim="24"), "embedding_dim must be a whole number"),
        (about(surprise=1), "surprise"),
        (about(videos={"path": "a\0b"}), "names no file"),
        (about(videos={"count": -1}), "negative or no numbers"),
        (about(twice=True), "two of the videos are the same one"),
        (lambda content: [], "holds no vectors"),
    ],
)
def test_what_a_file_says_of_its_vectors_is_checked(
    kind, filled, tmp_path, capsys, change, message
):
    path = exported(filled, tmp_path / f"v.{kind}")
    if kind == "npz":
        with np.load(path) as arrays:
            content = dict(arrays)
        text = json.dumps(change(json.loads(content["about"].tobytes()))).encode()
        np.savez(path, **{**content, "about": np.frombuffer(text, np.uint8)})
    else:
        old = parquet.read_table(path)
        text = json.dumps(change(json.loads(old.schema.metadata[b"vmm"])))
        parquet.write_table(old.replace_schema_metadata({"vmm": text}), path)
    assert main(["vectors", "import", str(path), str(tmp_path / "back")]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and ".partial" not in said
    assert not (tmp_path / "back").exists()


def npz(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


class Harm:
    def __reduce__(self):
        return (os.mkdir, ("harmed",))


def test_arrays_are_neither_pickles_nor_larger_than_the_file(filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = exported(filled, tmp_path / "v.npz")
    with np.load(path) as arrays:
        good = {name: npy(arrays[name]) for name in arrays}
    huge = npy(np.zeros((4, 24), np.float32)).replace(b"(4, 24), ", b"(10000000000, 24), "[:18])
    header = good["vectors"].replace(b"'shape': (", b"'shape': (9", 1)
    for changes, message in (
        ({"vectors": npy(np.array([Harm()], object), allow_pickle=True)}, "no plain array"),
        ({"about": npy(np.array([Harm()], object), allow_pickle=True)}, "no plain array"),
        ({"vectors": huge}, "holds no vectors of vmm"),
        ({"vectors": header}, "does not fit its"),
        ({"vectors": good["vectors"][:-4]}, "does not fit its"),
        ({"vectors": b"PK"}, "holds no vectors of vmm"),
        ({"spans": good["video"]}, "expected"),
        ({"video": npy(np.zeros(filled.num_moments))}, "video must be whole numbers"),
        ({"vectors": npy(np.zeros((filled.num_moments, 24), int))}, "must be floating-point"),
    ):
        npz(path, **{**good, **changes})
        with pytest.raises(ValueError, match=message):
            imported(path, tmp_path / "back")
    npz(path, zipfile.ZIP_DEFLATED, **good)
    with pytest.raises(ValueError, match=r"is compressed; write it with numpy\.savez"):
        imported(path, tmp_path / "back")
    del good["spans"]
    npz(path, **good)
    with pytest.raises(ValueError, match=r"no item named 'spans\.npy'"):
        imported(path, tmp_path / "back")
    assert not (tmp_path / "harmed").exists() and not (tmp_path / "back").exists()


def test_a_table_that_would_fill_the_disk_is_refused(filled, tmp_path):
    path = exported(filled, tmp_path / "v.parquet")
    old = parquet.read_table(path)
    rows = 100_000
    row = old.slice(0, 1)
    many = pa.table(
        [pa.concat_arrays([row[name].combine_chunks()] * rows) for name in row.column_names],
        schema=old.schema,
    )
    parquet.write_table(many, path, compression="zstd")
    with pytest.raises(ValueError, match="vectors would be 9600000 bytes, which no such file"):
        parquet_file.read(path)


def test_damaged_files_end_in_a_sentence(kind, filled, tmp_path):
    path = exported(filled, tmp_path / f"v.{kind}")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    ended = 0
    for number in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: int(rng.integers(len(whole)))] if number % 3 == 0 else damaged)
        try:
            imported(path, tmp_path / f"back{number}")
        except ValueError:
            ended += 1
    assert ended >= 13
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no vectors of vmm"):
        imported(path, tmp_path / "back")
