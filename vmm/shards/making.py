"""Making shards from annotations and a folder of media.

A folder gets ``00000.tar``, ``00001.tar`` ... in the img2dataset / video2dataset convention
(``vmm.data.schema``), ``00000_stats.json`` beside each, and in the end ``failures.jsonl`` and
``summary.json``. Every number of processes or machines gives the same bytes. A run that was
stopped, by whatever, goes on where it was: a shard has its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from vmm.data.annotations.record import Annotation
from vmm.data.faults import SampleError
from vmm.data.schema import is_leftover
from vmm.shards.processes import process_pool
from vmm.shards.samples import Job, Layout, make_sample, plan, shard_name
from vmm.shards.tars import Member, write_shard
from vmm.text_output import number_of
from vmm.whole import whole_file

FORMAT_VERSION = 3  # one higher whenever the same arguments give other shards
PLAN, _SUMMARY, _FAILURES = "plan.json", "summary.json", "failures.jsonl"

_done: Any = None  # in a worker process: counts finished samples for the progress bar


@dataclass(frozen=True)
class MakeOptions:
    """Where shards come from and go, and how they are made.

    Args:
        media: Folder that holds the files; nested folders and missing extensions are fine.
        out: Folder to write to; what a stopped run with the same options left there is kept.
        layout: How the media are stored.
        samples_per_shard: Samples of a full shard.
        workers: Processes.
        shard_range: (first, end) of the shards to make here; None = all. Several machines with
            one ``out`` share the work by it.
        ray: Run on a Ray cluster instead of local processes. All machines have vmm, and see
            ``media`` and ``out`` under the same path.

    Raises:
        ValueError: If a shard would have no sample.
    """

    media: Path
    out: Path
    layout: Layout = field(default_factory=Layout)
    samples_per_shard: int = 1000
    workers: int = 1
    shard_range: tuple[int, int] | None = None
    ray: bool = False

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise ValueError(f"--samples-per-shard is {self.samples_per_shard}; give at least 1")


@dataclass(frozen=True)
class MadeShards:
    """What is made so far, by this run and others; ``summary.json`` says the same.

    Args:
        shards: All that there will be, of which
        finished: so many are.
        count: Samples of those, of which
        successes: so many could be made.
        without_caption: Samples of ``count`` that nothing is said about.
        bytes: Size of the shards.
        failed: Reason -> samples that could not be made, most frequent first.
        made_with: Library -> version.
    """

    shards: int
    finished: int
    count: int
    successes: int
    without_caption: int
    bytes: int
    failed: dict[str, int]
    made_with: dict[str, str]

    def in_words(self, out: Path) -> str:
        """Say in a line or two what there is in ``out``."""
        failed = ", ".join(f"{n} {reason}" for reason, n in self.failed.items())
        said = (
            f"{out}: {self.finished} of {number_of(self.shards, 'shard')}, "
            f"{self.successes} of {number_of(self.count, 'sample')}, {self.bytes / 1e6:.1f} MB; "
            f"failed: {failed or 'none'}"
        )
        if self.failed:
            said += f" (each is named in {out / _FAILURES})"
        if self.without_caption:
            have = number_of(self.without_caption, "sample has", "samples have")
            said += f"\n{have} no caption, "
            said += "which training on captions leaves out"
        return said

    def lacking(self, out: Path) -> str:
        """Say what of ``out`` could not be made, and what to do if that is all; "" if nothing."""
        failed = sum(self.failed.values())
        if not failed:
            return ""
        said = f"{failed} of {number_of(self.count, 'sample')} of {out} failed"
        if not self.successes:
            said += (
                f", so it is empty (mend or leave out the files that {out / _FAILURES} names, "
                "and give another --out)"
            )
        return said


def make_shards(annotations: Sequence[Annotation], options: MakeOptions) -> MadeShards:
    """Write all shards that are not there yet.

    Args:
        annotations: What to put in, see ``vmm.data.annotations.registry.read_annotations``.
        options: Where from, where to and how.

    Raises:
        ValueError: If ``out`` was made with other arguments, or a number does not fit.
        ChildProcessError: If one died.
    """
    shards = plan(annotations, options.media, options.samples_per_shard)
    first, end = options.shard_range or (0, len(shards))
    if not 0 <= first < end:
        raise ValueError(f"--shard-range is {first}:{end}; give A:B with 0 <= A < B")
    out = options.out
    _claim(annotations, options, len(shards))
    wanted = [n for n in range(first, min(end, len(shards))) if not _finished(out, n)]
    _sweep(out, first, end)  # what a killed run left
    total = sum(len(shards[n]) for n in wanted)
    with tqdm(total=total, unit="sample", desc=str(out), smoothing=0.05) as progress:
        run = _on_ray if options.ray else _on_processes
        run([(n, shards[n]) for n in wanted], options, progress)
    _sweep(out, first, end)
    return _summarise(out, len(shards))


def write_one(number: int, jobs: list[Job], options: MakeOptions) -> int:
    """Make one shard, whole or not at all.

    Returns:
        Its number of samples that were made.
    """
    name = shard_name(number)
    failures: list[dict[str, str]] = []
    made: list[str] = []

    def samples() -> Iterator[list[Member]]:
        for job in jobs:
            try:
                sample = make_sample(job, options.layout)
            except SampleError as error:
                media = str(job.file or job.items[0].media)
                where = {"shard": name, "key": job.key, "id": job.items[0].key, "media": media}
                failures.append({**where, "reason": error.reason, "detail": error.detail})
            else:
                made.append(job.key)
                yield sample
            if _done is not None:
                with _done.get_lock():
                    _done.value += 1

    # Once the file of the name is there, the shard is finished.
    with whole_file(options.out / f"{name}.tar") as shard:
        digest = write_shard(shard, samples())
        stats = {
            "count": len(jobs),
            "successes": len(made),
            "without_caption": sum(not any(item.captions for item in job.items) for job in jobs),
            "failed": dict(sorted(Counter(f["reason"] for f in failures).items())),
            "bytes": shard.stat().st_size,
            "sha256": digest,
            "failures": failures,
        }
        _write(options.out / f"{name}_stats.json", json.dumps(stats, indent=1))
    return len(made)


def _finished(out: Path, number: int) -> bool:
    return (out / f"{shard_name(number)}.tar").is_file()


def _sweep(out: Path, first: int, end: int) -> None:
    """Remove what is left of shards that were not completed."""
    for partial in out.glob("*.partial"):
        ours = re.match(r"\.?(\d+)(\.tar|_stats\.json)\.", partial.name)
        if ours and first <= int(ours[1]) < end:
            partial.unlink(missing_ok=True)


def _claim(annotations: Sequence[Annotation], options: MakeOptions, shards: int) -> None:
    """Write down what is made here, or see that it is the same as before."""
    refuse_other(annotations, options)
    file = options.out / PLAN
    if not file.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        _write(file, json.dumps(_plan_of(annotations, options) | {"shards": shards}, indent=1))


def _plan_of(annotations: Sequence[Annotation], options: MakeOptions) -> dict[str, Any]:
    """Give what other shards follow from; their number does, too."""
    content = json.dumps([item._asdict() for item in annotations], default=str).encode()
    return {
        "version": FORMAT_VERSION,
        "annotations": hashlib.sha256(content).hexdigest(),
        "items": len(annotations),
        "layout": asdict(options.layout),
        "samples_per_shard": options.samples_per_shard,
    }


def refuse_other(annotations: Sequence[Annotation], options: MakeOptions) -> None:
    """Refuse a folder that holds other shards than would be made.

    Raises:
        ValueError: If it does, with what differs.
    """
    out, wanted = options.out, _plan_of(annotations, options)
    file = out / PLAN
    if file.is_file():
        try:
            there = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}); give another --out") from error
        names = [name for name in wanted if there.get(name) != wanted[name]]
        if "annotations" in names:  # from which this follows
            names = [name for name in names if name != "items"]
        if names:
            raise ValueError(
                f"{out} holds shards that were made with other {', '.join(names)}; "
                "give another --out"
            )
    elif out.is_dir() and not all(is_leftover(path.name) for path in out.glob("*.tar")):
        raise ValueError(f"{out} holds other shards; give another --out")


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write_text(text + "\n", encoding="utf-8")


def _start_worker(counter: Any) -> None:
    global _done
    _done = counter
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_processes(work: list[tuple[int, list[Job]]], options: MakeOptions, progress: Any) -> None:
    context = multiprocessing.get_context("spawn")  # not forked: the caller may run threads
    counter = context.Value("q", 0)
    if options.workers <= 1:
        _start_worker(counter)
        for number, jobs in work:
            write_one(number, jobs, options)
            progress.update(counter.value - progress.n)
        return
    with process_pool(options.workers, len(work), _start_worker, counter) as pool:
        running: set[Future[int]] = {
            pool.submit(write_one, number, jobs, options) for number, jobs in work
        }
        try:
            while running:
                finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                progress.update(counter.value - progress.n)
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process died while it made a shard, perhaps for lack of memory; the shards that "
                "are finished stay: start again, with fewer --workers"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _on_ray(work: list[tuple[int, list[Job]]], options: MakeOptions, progress: Any) -> None:
    try:
        import ray
    except ImportError as error:
        raise ValueError('--ray needs Ray; `pip install "vmm-video[ray]"`') from error
    ray.init(ignore_reinit_error=True)
    options = replace(options, out=options.out.absolute())

    def one(row: dict[str, Any]) -> dict[str, Any]:
        number, jobs = row["item"]
        return {"made": write_one(number, jobs, options), "count": len(jobs)}

    if work:
        data = ray.data.from_items(work, override_num_blocks=len(work))
        for row in data.map(one).iter_rows():
            progress.update(row["count"])


def _summarise(out: Path, shards: int) -> MadeShards:
    """Add up the shards that are finished."""
    stats = [
        json.loads((out / f"{shard_name(n)}_stats.json").read_bytes())
        for n in range(shards)
        if _finished(out, n)
    ]
    failed: Counter[str] = Counter()
    for one in stats:
        failed.update(one["failed"])
    totals = {
        name: sum(one[name] for one in stats)
        for name in ("count", "successes", "without_caption", "bytes")
    }
    summary = MadeShards(
        shards,
        len(stats),
        **totals,
        failed=dict(failed.most_common()),
        made_with={"av": av.__version__},
    )
    lines = [json.dumps(failure) for one in stats for failure in one["failures"]]
    _write(out / _FAILURES, "\n".join(lines))
    _write(out / _SUMMARY, json.dumps(asdict(summary), indent=1))
    return summary
