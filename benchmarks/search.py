"""What an exact query costs in an index of 100,000 moments, beside numpy alone and faiss.

python -m benchmarks.search [--short] [--output FOLDER]
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import common, report
from vmm.export.encoder import Floats, VideoTextEncoder
from vmm.search.index import Index, Settings
from vmm.search.parts import Record
from vmm.search.query import Searcher

VMM, NUMPY, FAISS = "vmm search", "numpy, product and top 10", "faiss IndexFlatIP"
MOMENTS_OF_A_VIDEO = 25
TEXT_ABOUT = (
    "CPU seconds of one query, a vector, for the ten nearest moments: `vmm search` without loading "
    "the encoder. It looks at every vector, which are mapped from the index's file, and leaves out "
    "moments that overlap a better one; the others do not. The best of several turns, in one "
    "process; numpy's and faiss's threads are added up."
)


class Sizes(NamedTuple):
    """What is measured."""

    moments: tuple[int, ...]
    embedding_dim: int
    rounds: int


LONG = Sizes((1_000, 10_000, 100_000), 512, 10)
SHORT = Sizes((1_000, 10_000), 512, 3)


class NoEncoder(VideoTextEncoder):
    """Has a fingerprint; the queries are vectors."""

    def __init__(self) -> None:
        self.fingerprint, self.folder = "benchmark", Path("none")


def unit_vectors(count: int, width: int, seed: int) -> Floats:
    """Draw (count, width) directions."""
    vectors = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def make_index(folder: Path, vectors: Floats) -> Searcher:
    """Write an index of 8-second moments every 4 seconds, and open it."""
    count, width = vectors.shape
    index = Index.create(folder, Settings("benchmark", "none", width, 8.0, 4.0))
    videos = [
        Record(f"/videos/{i}.mp4", "", digest="0", count=MOMENTS_OF_A_VIDEO, done=True)
        for i in range(count // MOMENTS_OF_A_VIDEO)
    ]
    starts = 4.0 * np.tile(np.arange(MOMENTS_OF_A_VIDEO), len(videos))
    index.add(videos, np.stack([starts, starts + 8], 1).tolist(), list(vectors))
    return Searcher(Index.open(folder), NoEncoder())


def variants(searcher: Searcher, vectors: Floats, query: Floats) -> dict[str, Callable[[], object]]:
    """Return what is raced; faiss if it is installed."""

    def alone() -> list[int]:
        scores = vectors @ query
        rows = np.argpartition(-scores, 10)[:10]
        return [int(i) for i in rows[np.argsort(-scores[rows])]]

    calls: dict[str, Callable[[], object]] = {VMM: lambda: searcher.search(query), NUMPY: alone}
    try:
        import faiss
    except ImportError:
        return calls
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    assert flat.search(query[None], 10)[1][0].tolist() == alone()
    return calls | {FAISS: lambda: flat.search(query[None], 10)}


def faiss_version() -> str | None:
    """Return the version of faiss, None if it is not installed."""
    try:
        return importlib.metadata.version("faiss-cpu")
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(moments: int, sizes: Sizes, race: common.Race) -> dict[str, float]:
    """Return the seconds of each variant."""
    vectors = unit_vectors(moments, sizes.embedding_dim, seed=0)
    query = unit_vectors(1, sizes.embedding_dim, seed=1)[0]
    with tempfile.TemporaryDirectory() as folder:
        searcher = make_index(Path(folder) / "index", vectors)
        best = searcher.search(query, 1)[0].similarity
        assert abs(best - float((vectors @ query).max())) < 1e-6
        timings = race.run(moments, variants(searcher, vectors, query))
    return {name: timing.fastest for name, timing in timings.items()}


def main() -> None:
    """Measure and write the report."""
    given = report.options("benchmarks.search", __doc__ or "", "at most 10,000 moments")
    sizes = SHORT if given.short else LONG
    race = common.Race(sizes.rounds, limit_s=20)
    seconds = {n: measure(n, sizes, race) for n in report.progress(sizes.moments, "search")}
    names = list(seconds[sizes.moments[0]])
    most = seconds[sizes.moments[-1]]
    bars = [report.Bar("milliseconds of a query, 100,000 moments", 50, most[VMM] * 1e3, True)]
    if FAISS in names:
        bars.append(report.Bar("times faiss's time", 1.0, most[VMM] / most[FAISS], True))
    figure, axes = report.new_figure(1)
    for name in names:
        axes[0, 0].plot(sizes.moments, [of[name] for of in seconds.values()], "o-", label=name)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="moments", ylabel="CPU seconds")
    axes[0, 0].legend()
    rows: list[dict[str, Any]] = [
        {"moments": moments, "variant": name, "seconds": time}
        for moments, of in seconds.items()
        for name, time in of.items()
    ]
    found = report.Report(
        name="search",
        title="Exact search",
        text=TEXT_ABOUT,
        settings=sizes._asdict() | {"faiss": faiss_version()},
        rows=rows,
        tables={
            "CPU seconds of a query": report.table(
                ["moments", *names],
                [[f"{n:,}", *(report.number(of[v]) for v in names)] for n, of in seconds.items()],
            )
        },
        bars=bars if sizes.moments[-1] == LONG.moments[-1] else [],
        notes=[] if FAISS in names else ["faiss is not installed"],
    )
    print(found.write(given, figure).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
