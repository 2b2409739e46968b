"""What other programs find in exported vectors is what we find."""

import json
import sys

import faiss
import lancedb
import numpy as np
import pytest
from pyarrow import parquet
from qdrant_client import QdrantClient

from vmm.cli import main
from vmm.search.kinds import kind_of
from vmm.search.stores import table as tables
from vmm.search.stores.registry import READABLE, STORES
from vmm.search.stores.table import table_of

K = 15


@pytest.fixture(params=[7, 16_384])
def export(request, filled, tmp_path, monkeypatch):
    """Write to a store, in chunks of several sizes."""
    monkeypatch.setattr(tables, "CHUNK", request.param)

    def export(name):
        out = tmp_path / name
        said = kind_of(STORES, name, "OUT").load(name)(table_of(filled), out)
        assert said[0].startswith(f"wrote {filled.num_moments} vectors to {out}")
        return out

    return export


def ours(searcher, query):
    """File, start and cosine of the nearest moments."""
    cosines = searcher.similarities(query)
    rows = np.argsort(-cosines)[:K]
    return [
        (str(searcher.sources[searcher.owner[row]]), searcher.spans[row, 0], cosines[row])
        for row in rows
    ]


def queries():
    drawn = np.random.default_rng(5).standard_normal((10, 24)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def check(searcher, query, theirs):
    expected = ours(searcher, query)
    assert [row[:2] for row in theirs] == [row[:2] for row in expected]
    assert np.allclose([row[2] for row in theirs], [row[2] for row in expected], atol=1e-5)


def test_faiss(export, searcher):
    out = export("vectors.faiss")
    index = faiss.read_index(str(out))
    lines = out.with_suffix(".jsonl").read_text().splitlines()
    moments = [json.loads(line) for line in lines]
    assert index.ntotal == len(moments) == searcher.index.num_moments
    assert [moment["id"] for moment in moments] == list(range(len(moments)))
    scores, numbers = index.search(queries(), K)
    for query, cosines, rows in zip(queries(), scores, numbers, strict=True):
        near = [moments[row] for row in rows]
        theirs = [(m["file"], m["start"], c) for m, c in zip(near, cosines, strict=True)]
        check(searcher, query, theirs)


def test_lancedb(export, searcher):
    table = lancedb.connect(str(export("vectors.lancedb"))).open_table("moments")
    assert table.count_rows() == searcher.index.num_moments
    for query in queries():
        rows = table.search(query).distance_type("cosine").limit(K).to_list()
        check(searcher, query, [(r["file"], r["start"], 1 - r["_distance"]) for r in rows])


def test_qdrant(export, searcher):
    client = QdrantClient(path=str(export("vectors.qdrant")))
    try:
        assert client.count("moments").count == searcher.index.num_moments
        for query in queries():
            points = client.query_points("moments", query.tolist(), limit=K).points
            theirs = [(p.payload["file"], p.payload["start"], p.score) for p in points]
            check(searcher, query, theirs)
    finally:
        client.close()


def test_numpy(export, searcher):
    with np.load(export("vectors.npz"), allow_pickle=False) as arrays:
        videos = json.loads(arrays["about"].tobytes())["videos"]
        for query in queries():
            cosines = arrays["vectors"] @ query
            rows = np.argsort(-cosines)[:K]
            near = [(videos[arrays["video"][row]]["path"], arrays["spans"][row, 0]) for row in rows]
            check(searcher, query, [(*n, c) for n, c in zip(near, cosines[rows], strict=True)])


def test_parquet(export, searcher):
    table = parquet.read_table(export("vectors.parquet"))
    assert table.column_names == ["id", "video", "file", "member", "start", "end", "vector"]
    frame = table.to_pandas()
    vectors = np.stack(frame["vector"])
    assert vectors.dtype == np.float32 and frame["id"].tolist() == list(range(len(frame)))
    assert json.loads(table.schema.metadata[b"vmm"])["settings"]["fingerprint"] == "f" * 64
    for query in queries():
        cosines = vectors @ query
        near = frame.iloc[np.argsort(-cosines)[:K]]
        scores = np.sort(cosines)[::-1][:K]
        check(searcher, query, list(zip(near["file"], near["start"], scores, strict=True)))


@pytest.mark.parametrize(
    ("end", "package"), [("faiss", "faiss"), ("lancedb", "lancedb"), ("qdrant", "qdrant_client"),
                         ("parquet", "pyarrow")],
)  # fmt: skip
def test_a_missing_extra_is_named(end, package, filled, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [n for n in sys.modules if n.startswith("vmm.search.stores.")]:
        if name != "vmm.search.stores.registry":
            monkeypatch.delitem(sys.modules, name)
    out = tmp_path / f"x.{end}"
    assert main(["vectors", "export", str(filled.folder), str(out)]) == 2
    said = capsys.readouterr().err
    assert f"OUT {out} needs the package {package!r}" in said
    assert f'pip install "vmm-video[{end}]"' in said and not out.exists()


def test_kinds_and_places(filled, new_index, tmp_path, capsys):
    assert main(["vectors", "export", str(filled.folder), str(tmp_path / "x.npy")]) == 2
    assert "x.npy is of no known kind; known are .parquet, .npz" in capsys.readouterr().err
    assert main(["vectors", "import", str(tmp_path / "x.faiss"), str(tmp_path / "i")]) == 2
    assert "known are .parquet, .npz" in capsys.readouterr().err and len(READABLE) == 2
    assert main(["vectors", "export", str(new_index("empty").folder), "x.npz"]) == 2
    assert "holds no moments; `vmm encode` fills it" in capsys.readouterr().err
    assert main(["vectors", "export", str(filled.folder), str(tmp_path / "a" / "x.npz")]) == 0
    assert capsys.readouterr().out == (
        f"wrote {filled.num_moments} vectors to {tmp_path}/a/x.npz\n"
    )
