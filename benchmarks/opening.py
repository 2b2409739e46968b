"""What a start costs on ten million samples: opening the shards' indexes, and the first batch.

python -m benchmarks.opening [--short] [--output FOLDER]
"""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common, report
from vmm.data.contents import Selection, Summary
from vmm.data.index_files import INDEX_SUFFIX, index_shards, load_indexes

OPEN, BATCH, WHOLE = "opening", "first batch", "reading every sample's entry"
TEXT_ABOUT = (
    "Seconds until a training process knows its samples and has read the first batch (bytes, "
    "nothing decoded), in a process of its own, files in the system's cache. `reading every "
    "sample's entry` is what a start did before the first line of an index said what the shard "
    "holds; it is measured on the first shards and multiplied. Few shards are different files, the "
    "others are links to them with indexes of their own."
)


class Sizes(NamedTuple):
    """What is measured."""

    shards: tuple[int, ...]
    samples: int
    """Of a shard."""
    different: int
    """Shards that are made; the others are links."""
    batch: int
    read_whole: int
    """Shards of which every entry is read, too."""


LONG = Sizes((25, 250, 2500), 4000, 25, 256, 25)
SHORT = Sizes((25, 250), 400, 5, 64, 25)


def write_shard(path: Path, samples: int, seed: int) -> None:
    """Write a shard of clips of a few bytes with captions."""
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            key = f"{seed:04d}{number:06d}"
            for extension, content in (("mp4", b"clip"), ("txt", f"caption {key}".encode())):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def make_shards(folder: Path, count: int, sizes: Sizes) -> float:
    """Make so many shards and their indexes; return the seconds that indexing one takes."""
    folder.mkdir()
    different = min(count, sizes.different)
    paths = [folder / f"{n:06d}.tar" for n in range(count)]
    for seed, path in enumerate(paths[:different]):
        write_shard(path, sizes.samples, seed)
    start = time.perf_counter()
    index_shards([str(path) for path in paths[:different]])
    seconds = time.perf_counter() - start
    for number, path in enumerate(paths[different:]):
        twin = paths[number % different]
        os.link(twin, path)
        Path(f"{path}{INDEX_SUFFIX}").write_bytes(Path(f"{twin}{INDEX_SUFFIX}").read_bytes())
    return seconds / different


def open_and_read(pattern: str, batch: int) -> dict[str, float]:
    """Open shards and read a batch; seconds, and MiB that the process has grown by."""
    from vmm.data.corpora import open_corpora  # with torch, which is no part of what is measured

    times = []

    def start_up() -> int:
        times.append(time.perf_counter())
        mixture = open_corpora({"video": pattern}, seed=0)["video"]
        assert not list(mixture.left_out())
        times.append(time.perf_counter())
        read = [mixture.read(mixture.locate(position)) for position in range(batch)]
        assert all(sample.data == b"clip" for sample in read)
        times.append(time.perf_counter())
        return len(mixture)

    before = common.peak_memory(lambda: None) or 0
    samples = []
    grown = (common.peak_memory(lambda: samples.append(start_up())) or 0) - before
    start, opened, end = times
    return {
        OPEN: opened - start,
        BATCH: end - opened,
        "MiB": grown / 2**20,
        "samples": samples[0],
    }


def read_whole(paths: list[str]) -> float:
    """Return the seconds of reading every entry of some shards."""
    start = time.perf_counter()
    for index in load_indexes(paths):
        Summary.of(index, Selection("video"))
    return time.perf_counter() - start


def measure(count: int, sizes: Sizes) -> dict[str, float]:
    """Make shards and open them in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shards"
        indexing = make_shards(folder, count, sizes)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(open_and_read, (f"{folder}/*.tar", sizes.batch))
        some = [str(path) for path in sorted(folder.glob("*.tar"))[: sizes.read_whole]]
        found[WHOLE] = read_whole(some) * count / len(some)
    assert found["samples"] == count * sizes.samples
    return found | {"indexing a shard": indexing}


def main() -> None:
    """Measure and write the report."""
    given = report.options("benchmarks.opening", __doc__ or "", "at most 250 small shards")
    sizes = SHORT if given.short else LONG
    found = {count: measure(count, sizes) for count in report.progress(sizes.shards, "opening")}
    most = found[sizes.shards[-1]]
    bars = [
        report.Bar("seconds of opening 10,000,000, first batch", 5, most[OPEN] + most[BATCH], True),
        report.Bar("MiB of a process", 200, most["MiB"], True),
    ]
    figure, axes = report.new_figure(1)
    for name in (OPEN, BATCH, WHOLE):
        points = [(of["samples"], of[name]) for of in found.values()]
        axes[0, 0].plot(*zip(*points, strict=True), "o-", label=name)
    axes[0, 0].set(xscale="log", yscale="log", xlabel="samples", ylabel="seconds")
    axes[0, 0].legend()
    columns = [OPEN, BATCH, WHOLE, "MiB", "indexing a shard"]
    rows: list[dict[str, Any]] = [{"shards": count, **of} for count, of in found.items()]
    lines = [
        [f"{count:,}", f"{of['samples']:,}", *(report.number(of[name]) for name in columns)]
        for count, of in found.items()
    ]
    page = report.Report(
        name="opening",
        title="Opening shards",
        text=TEXT_ABOUT,
        settings=sizes._asdict() | {"processes that index": os.cpu_count()},
        rows=rows,
        tables={"Seconds": report.table(["shards", "samples", *columns], lines)},
        bars=[] if given.short else bars,
        notes=[],
    )
    print(page.write(given, figure).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
