"""What an index of a million moments in 100,000 files costs, beside faiss alone.

python -m benchmarks.collection [--short] [--output FOLDER]
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import common, report
from benchmarks.collection_made import QUERIES, Collection, Sizes, add_files, make_files
from vmm.data.transforms import ClipSettings
from vmm.export.encoder import Floats, VideoTextEncoder
from vmm.search.approximate import make_lists
from vmm.search.duplicates import find_duplicates
from vmm.search.encode import Counts, encode_videos
from vmm.search.index import Index, Settings
from vmm.search.query import Searcher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXACT, NEAR = "vmm search", "vmm search --approximate"
FLAT, HNSW = "faiss IndexFlatIP", "faiss HNSW"
TOP = 10
TEXT_ABOUT = (
    "CPU seconds of a process that works on a generated collection: vectors around some thousand "
    "centres, ten moments of a file near each other, and real files of a few bytes whose content "
    "is known, so that nothing is decoded or encoded. Queries lie, as sentences do, off all "
    f"moments: at a cosine of about 0.5. Recall is the share of the {TOP} best moments of exact "
    "search that are found. `vmm search` reads vectors mapped from the index's file; faiss holds "
    "them in memory, and neither knows files nor times. Memory is what belongs to the process, "
    "without mapped files, which the system may drop at any time. HNSW and duplicates are measured "
    "on a part of the collection, for both take too long."
)


LONG = Sizes(1_000_000, 20_000, 5_000, 512, 7)
SHORT = Sizes(20_000, 10_000, 500, 128, 3)


class NoEncoder(VideoTextEncoder):
    """Has a fingerprint; everything it would be asked is known."""

    def __init__(self) -> None:
        self.fingerprint, self.folder, self.clip = "benchmark", Path("none"), ClipSettings(4, 32)


class Steps:
    """Times steps and watches the memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def step(self, name: str, moments: int) -> Iterator[None]:
        """Note CPU seconds and the most memory of a block."""
        print(name, flush=True)
        most, over = [_own_memory()], threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                most.append(_own_memory())

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        began = time.process_time()
        yield
        seconds = time.process_time() - began
        over.set()
        watcher.join()
        row = {"step": name, "moments": moments, "seconds": seconds}
        self.rows.append(row | {"megabytes": max(*most, _own_memory()) / 1e6})


def _own_memory() -> int:
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return 1024 * int(found[1]) if found else 0


def build(index: Index, collection: Collection, folder: Path, steps: Steps) -> None:
    """Fill an index part by part, as many processes over weeks would."""
    sizes = collection.sizes
    at_once = max(sizes.files // 20, 1)
    with steps.step("generating and adding all vectors", sizes.moments):
        for first in range(0, sizes.files, at_once):
            add_files(index, folder, sizes, first, collection.files(first, at_once))


def change(folder: Path, index_folder: Path, steps: Steps, sizes: Sizes) -> None:
    """Move files, delete them, and bring the index up to date."""
    some = sizes.of_a_folder

    def update(name: str, **wanted: int) -> None:
        with steps.step(name, sizes.moments):
            counts: Counts = encode_videos(Index.open(index_folder), NoEncoder(), [folder])
        assert all(getattr(counts, key) == value for key, value in wanted.items()), counts

    update("a look at all files, nothing new", unchanged=sizes.files)
    (folder / "000").rename(folder / "moved")
    update(f"a look, {some:,} files have moved", encoded=0, reused=some, removed=some)
    for path in (folder / "moved").iterdir():
        path.unlink()
    update(f"a look, {some:,} files are gone", encoded=0, removed=some)


def recall(search: Callable[[Floats], list[Any]], exact: list[list[Any]], queries: Floats) -> float:
    """Return the share of the best that is found."""
    shares = [
        len({*search(query)} & {*best}) / len(best)
        for query, best in zip(queries, exact, strict=True)
    ]
    return float(np.mean(shares))


def places(searcher: Searcher) -> Callable[[Floats], list[Any]]:
    """Return a search whose answers can be compared."""
    return lambda query: [(hit.source, hit.start) for hit in searcher.search(query, TOP)]


def race_queries(index: Index, queries: Floats, rounds: int, steps: Steps) -> list[dict[str, Any]]:
    """Return time and recall of each variant at one size."""
    with steps.step("opening, exact", index.num_moments):
        exact = Searcher(Index.open(index.folder), NoEncoder())
    near = Searcher(index, NoEncoder(), approximate=True)
    best = [places(exact)(query) for query in queries]
    product = max(float((table @ queries[0]).max()) for table in exact._moments.vectors)
    assert abs(exact.search(queries[0], 1)[0].similarity - product) < 1e-6
    turns = {name: _in_turn(queries) for name in (EXACT, NEAR, FLAT)}
    variants: dict[str, Callable[[], object]] = {
        EXACT: lambda: exact.search(next(turns[EXACT]), TOP),
        NEAR: lambda: near.search(next(turns[NEAR]), TOP),
    }
    try:
        import faiss
    except ImportError:
        pass
    else:
        flat = faiss.IndexFlatIP(queries.shape[1])
        for table in exact._moments.vectors:
            flat.add(np.ascontiguousarray(table))
        variants[FLAT] = lambda: flat.search(next(turns[FLAT])[None], TOP)
    timings = common.Race(rounds, limit_s=20).run(index.num_moments, variants)
    recalls = {EXACT: 1.0, FLAT: 1.0, NEAR: recall(places(near), best, queries)}
    return [
        {"variant": n, "moments": index.num_moments, "seconds": t.fastest, "recall": recalls[n]}
        for n, t in timings.items()
    ]


def _in_turn(queries: Floats) -> Iterator[Floats]:
    while True:
        yield from queries


def race_hnsw(vectors: Floats, queries: Floats, steps: Steps) -> list[dict[str, Any]]:
    """Return time and recall of faiss's graph, if it is installed."""
    try:
        import faiss
    except ImportError:
        return []
    count = len(vectors)
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    with steps.step("building faiss HNSW", count):
        graph.add(vectors)
    best = [np.argsort(-(vectors @ query))[:TOP].tolist() for query in queries]
    rows = []
    for look in (16, 64, 256):
        graph.hnsw.efSearch = look
        turns = _in_turn(queries)
        search = lambda query: graph.search(query[None], TOP)[1][0].tolist()  # noqa: E731
        timing = common.Race(3, 5).run(count, {HNSW: lambda: search(next(turns))})[HNSW]  # noqa: B023
        found = recall(search, best, queries)
        name = f"{HNSW}, efSearch {look}"
        rows.append({"variant": name, "moments": count, "seconds": timing.fastest, "recall": found})
    return rows


def measure(sizes: Sizes, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of queries and of steps."""
    collection, steps = Collection(sizes), Steps()
    queries = collection.queries()
    settings = Settings("benchmark", "none", sizes.embedding_dim, 4.0, 4.0)
    files = folder.resolve() / "files"  # an index names files so
    make_files(files, sizes)
    answers: list[dict[str, Any]] = []
    part = Index.create(folder / "part", settings)
    vectors = collection.files(0, sizes.part_files)
    add_files(part, files, sizes, 0, vectors)
    part.reload()
    with steps.step("making the lists", sizes.part):
        make_lists(part)
    answers += race_queries(part, queries, sizes.rounds, steps)
    answers += race_hnsw(vectors, queries, steps)
    with steps.step("finding duplicates", sizes.part):
        find_duplicates(part)
    del vectors
    index = Index.create(folder / "index", settings)
    build(index, collection, files, steps)
    with steps.step("opening the index", sizes.moments):
        index = Index.open(folder / "index")
    with steps.step("making the lists", sizes.moments):
        make_lists(index)
    answers += race_queries(index, queries, sizes.rounds, steps)
    change(files, folder / "index", steps, sizes)
    with steps.step("compacting", sizes.moments):
        Index.open(folder / "index").compact()
    return answers, steps.rows


def faiss_version() -> str | None:
    """Return the version of faiss, None if it is not installed."""
    try:
        return importlib.metadata.version("faiss-cpu")
    except importlib.metadata.PackageNotFoundError:
        return None


def bars(answers: list[dict[str, Any]], moments: int) -> list[report.Bar]:
    """Compare the largest index with what was promised."""
    of = {row["variant"]: row for row in answers if row["moments"] == moments}
    exact, near = of[EXACT], of[NEAR]
    found = [
        report.Bar("milliseconds of an exact query", 200, exact["seconds"] * 1e3, True),
        report.Bar("milliseconds of an approximate query", 20, near["seconds"] * 1e3, True),
        report.Bar("recall of an approximate query", 0.95, near["recall"]),
    ]
    if FLAT in of:
        ratio = exact["seconds"] / of[FLAT]["seconds"]
        found.append(report.Bar("exact query, times faiss's time", 1.0, ratio, True))
    return found


def draw(answers: list[dict[str, Any]]) -> Figure:
    """Show recall over time; larger dots are of larger indexes."""
    figure, axes = report.new_figure(1)
    for row in answers:
        axes[0, 0].scatter(
            row["seconds"] * 1e3,
            row["recall"],
            s=10 * np.log10(row["moments"]),
            label=f"{row['variant']}, {row['moments']:,}",
        )
    axes[0, 0].set(
        xscale="log", xlabel="CPU milliseconds of a query", ylabel=f"recall of the {TOP} best"
    )
    axes[0, 0].legend(fontsize=7)
    return figure


def main() -> None:
    """Measure and write the report."""
    given = report.options("benchmarks.collection", __doc__ or "", "20,000 moments")
    sizes = SHORT if given.short else LONG
    with tempfile.TemporaryDirectory() as folder:
        answers, steps = measure(sizes, Path(folder))
    figure = draw(answers)
    found = report.Report(
        name="collection",
        title="Search in large collections",
        text=TEXT_ABOUT,
        settings=sizes._asdict() | {"faiss": faiss_version(), "top": TOP, "queries": QUERIES},
        rows=[*answers, *steps],
        tables={
            "Queries": report.table(
                ["moments", "variant", "CPU milliseconds", f"recall of the {TOP} best"],
                [
                    [
                        f"{r['moments']:,}",
                        r["variant"],
                        report.number(r["seconds"] * 1e3),
                        f"{r['recall']:.3f}",
                    ]
                    for r in answers
                ],
            ),
            "Everything else": report.table(
                ["moments", "step", "CPU seconds", "most memory, MB"],
                [
                    [
                        f"{r['moments']:,}",
                        r["step"],
                        report.number(r["seconds"]),
                        f"{r['megabytes']:,.0f}",
                    ]
                    for r in steps
                ],
            ),
        },
        bars=[] if given.short else bars(answers, sizes.moments),
        notes=[
            "taken on a busy machine: CPU time, and ratios of variants that ran in turns",
            *([] if faiss_version() else ["faiss is not installed"]),
        ],
    )
    print(found.write(given, figure).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
