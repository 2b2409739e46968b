"""Make shards from a data set's annotation file and a folder of its media.

    python -m data_prep.make_shards msrvtt_ret_train9k.json videos/ -o shards/msrvtt-train

writes ``00000.tar``, ``00001.tar`` ... in the img2dataset / video2dataset convention
(``vmm.data.schema``), ``00000_stats.json`` beside each, and in the end ``failures.jsonl`` and
``summary.json``. Every number of processes or machines gives the same bytes. A run that was
stopped, by whatever, goes on where it was: a shard has its name only when it is complete.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from data_prep.clips import BadMedia
from data_prep.folders import process_pool
from data_prep.samples import Job, Layout, make_sample, plan, shard_name
from data_prep.tars import Member, write_shard
from vmm.command_line import CommandParser, run_to_status, whole
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.data.schema import is_leftover
from vmm.text_output import say
from vmm.whole import whole_file

FORMAT_VERSION = 3  # one higher whenever the same arguments give other shards
_PLAN, _SUMMARY, _FAILURES = "plan.json", "summary.json", "failures.jsonl"
_LAYOUT_HELP = {
    "kind": "files as they are; H.264; or JPEG pictures at a rate in one Matroska file per clip",
    "short_side": "shorter side of re-encoded media, pixels; nothing is enlarged",
    "gop": "most frames from one key frame to the next, layout mp4",
    "fps": "pictures per second, layout frames",
    "quality": "of JPEG, 1 to 95, layout frames and re-encoded images",
}

_done: Any = None  # in a worker process: counts finished samples for the progress bar


def make_shards(
    annotations: Sequence[Annotation],
    media: Path,
    out: Path,
    layout: Layout,
    *,
    samples_per_shard: int = 1000,
    workers: int = 1,
    shard_range: tuple[int, int] | None = None,
    ray: bool = False,
) -> dict[str, Any]:
    """Write all shards that are not there yet.

    Args:
        annotations: What to put in.
        media: Folder that holds the files; nested folders and missing extensions are fine.
        out: Folder to write to; what a stopped run with the same arguments left there is kept.
        layout: How the media are stored.
        samples_per_shard: Samples of a full shard.
        workers: Processes.
        shard_range: (first, end) of the shards to make here; None = all. Several machines with
            one ``out`` share the work by it.
        ray: Run on a Ray cluster instead of local processes. All machines see ``media`` and
            ``out`` under the same path.

    Returns:
        The summary, over all shards that are finished.

    Raises:
        ValueError: If ``out`` was made with other arguments, or a number does not fit.
        ChildProcessError: If one died.
    """
    if samples_per_shard < 1:
        raise ValueError(f"--samples-per-shard is {samples_per_shard}; give at least 1")
    shards = plan(annotations, media, samples_per_shard)
    first, end = shard_range or (0, len(shards))
    if not 0 <= first < end:
        raise ValueError(f"--shard-range is {first}:{end}; give A:B with 0 <= A < B")
    _claim(out, annotations, layout, samples_per_shard, len(shards))
    wanted = [n for n in range(first, min(end, len(shards))) if not _finished(out, n)]
    _sweep(out, first, end)  # what a killed run left
    total = sum(len(shards[n]) for n in wanted)
    with tqdm(total=total, unit="sample", desc=str(out), smoothing=0.05) as progress:
        run = _on_ray if ray else _on_processes
        run([(n, shards[n]) for n in wanted], out, layout, workers, progress)
    _sweep(out, first, end)
    return _summarise(out, len(shards))


def write_one(number: int, jobs: list[Job], out: Path, layout: Layout) -> int:
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
                sample = make_sample(job, layout)
            except BadMedia as error:
                media = str(job.file or job.items[0].media)
                where = {"shard": name, "key": job.key, "id": job.items[0].key, "media": media}
                failures.append({**where, "reason": error.reason, "detail": error.detail})
            else:
                made.append(job.key)
                yield sample
            if _done is not None:
                with _done.get_lock():
                    _done.value += 1

    with whole_file(out / f"{name}.tar") as shard:  # once that is there, the shard is finished
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
        _write(out / f"{name}_stats.json", json.dumps(stats, indent=1))
    return len(made)


def _finished(out: Path, number: int) -> bool:
    return (out / f"{shard_name(number)}.tar").is_file()


def _sweep(out: Path, first: int, end: int) -> None:
    """Remove what is left of shards that were not completed."""
    for partial in out.glob("*.partial"):
        ours = re.match(r"(\d+)(\.tar|_stats\.json)\.", partial.name)
        if ours and first <= int(ours[1]) < end:
            partial.unlink(missing_ok=True)


def _claim(
    out: Path,
    annotations: Sequence[Annotation],
    layout: Layout,
    samples_per_shard: int,
    shards: int,
) -> None:
    """Write down what is made here, or see that it is the same as before."""
    content = json.dumps([item._asdict() for item in annotations], default=str).encode()
    wanted = {
        "version": FORMAT_VERSION,
        "annotations": hashlib.sha256(content).hexdigest(),
        "items": len(annotations),
        "layout": asdict(layout),
        "samples_per_shard": samples_per_shard,
        "shards": shards,
    }
    file = out / _PLAN
    if file.is_file():
        try:
            there = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} is damaged ({error}); give another --out") from error
        if there != wanted:
            names = [name for name in wanted if there.get(name) != wanted[name]]
            raise ValueError(
                f"{out} holds shards that were made with other {', '.join(names)}; "
                "give another --out"
            )
        return
    if out.is_dir() and not all(is_leftover(path.name) for path in out.glob("*.tar")):
        raise ValueError(f"{out} holds other shards; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    _write(file, json.dumps(wanted, indent=1))


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


def _on_processes(
    work: list[tuple[int, list[Job]]], out: Path, layout: Layout, workers: int, progress: Any
) -> None:
    context = multiprocessing.get_context("spawn")  # not forked: the caller may run threads
    counter = context.Value("q", 0)
    if workers <= 1:
        _start_worker(counter)
        for number, jobs in work:
            write_one(number, jobs, out, layout)
            progress.update(counter.value - progress.n)
        return
    with process_pool(workers, len(work), _start_worker, counter) as pool:
        running: set[Future[int]] = {
            pool.submit(write_one, number, jobs, out, layout) for number, jobs in work
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


def _on_ray(
    work: list[tuple[int, list[Job]]], out: Path, layout: Layout, workers: int, progress: Any
) -> None:
    try:
        import ray
    except ImportError as error:
        raise ValueError('--ray needs Ray; `pip install "vmm-video[ray]"`') from error
    # The machines of a cluster have vmm installed, but not this folder.
    ray.init(runtime_env={"py_modules": [str(Path(__file__).parent)]}, ignore_reinit_error=True)
    folder = out.absolute()

    def one(row: dict[str, Any]) -> dict[str, Any]:
        jobs = row["item"][1]
        return {"made": write_one(row["item"][0], jobs, folder, layout), "count": len(jobs)}

    if work:
        data = ray.data.from_items(work, override_num_blocks=len(work))
        for row in data.map(one).iter_rows():
            progress.update(row["count"])


def _summarise(out: Path, shards: int) -> dict[str, Any]:
    """Add up the shards that are finished."""
    stats = [
        json.loads((out / f"{shard_name(n)}_stats.json").read_bytes())
        for n in range(shards)
        if _finished(out, n)
    ]
    failed: Counter[str] = Counter()
    for one in stats:
        failed.update(one["failed"])
    summary = {
        "shards": shards,
        "finished": len(stats),
        **{
            name: sum(one[name] for one in stats)
            for name in ("count", "successes", "without_caption", "bytes")
        },
        "failed": dict(failed.most_common()),
        "made_with": {"av": av.__version__},
    }
    lines = [json.dumps(failure) for one in stats for failure in one["failures"]]
    _write(out / _FAILURES, "\n".join(lines))
    _write(out / _SUMMARY, json.dumps(summary, indent=1))
    return summary


def _range(text: str) -> tuple[int, int]:
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B")
    return int(first), int(end)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m data_prep.make_shards",
        description="Make shards from a data set's annotation file and a folder of its media.",
        epilog=f"data sets: {', '.join(DATASETS)}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("annotations", type=Path, help="annotation file, or folder of them")
    parser.add_argument("media", type=Path, help="folder of the videos or images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--dataset", help="whose annotations; told by the file where possible")
    parser.add_argument("--split", help='of a file that holds several, e.g. "train+restval"')
    parser.add_argument("--ids", type=Path, help="file that lists the ids to keep")
    parser.add_argument(
        "--paragraph", action=argparse.BooleanOptionalAction, default=None,
        help="join the captions of a video; by default as the data set's protocol does",
    )  # fmt: skip
    defaults = Layout()
    parser.add_argument(
        "--layout", choices=("original", "mp4", "frames"), default=defaults.kind,
        help=_LAYOUT_HELP["kind"],
    )  # fmt: skip
    for name, kind in (("short_side", int), ("gop", int), ("fps", float), ("quality", int)):
        flag = "--" + name.replace("_", "-")
        default = getattr(defaults, name)
        parser.add_argument(flag, type=kind, default=default, help=_LAYOUT_HELP[name])
    parser.add_argument("--samples-per-shard", type=int, default=1000, help="of a full shard")
    parser.add_argument("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    parser.add_argument("--shard-range", type=_range, metavar="A:B", help="make only these shards")
    parser.add_argument("--ray", action="store_true", help="run on a Ray cluster")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0 if every shard is finished and holds something."""
    options = _parser().parse_args(argv)
    kept = "the shards that are finished stay, the same command makes the rest"
    return run_to_status("data_prep.make_shards", lambda: _run(options), kept)


def _run(options: argparse.Namespace) -> int:
    annotations = read_annotations(
        options.annotations, options.dataset,
        split=options.split, ids=options.ids, paragraph=options.paragraph,
    )  # fmt: skip
    layout = Layout(
        options.layout,
        **{f.name: getattr(options, f.name) for f in fields(Layout) if f.name != "kind"},
    )
    summary = make_shards(
        annotations, options.media, options.out, layout,
        samples_per_shard=options.samples_per_shard, workers=options.workers,
        shard_range=options.shard_range, ray=options.ray,
    )  # fmt: skip
    failed = ", ".join(f"{n} {reason}" for reason, n in summary["failed"].items())
    say(
        f"{options.out}: {summary['finished']} of {summary['shards']} shards, "
        f"{summary['successes']} of {summary['count']} samples, {summary['bytes'] / 1e6:.1f} MB; "
        f"failed: {failed or 'none'}"
    )
    return 0 if summary["successes"] else 1


if __name__ == "__main__":
    sys.exit(main())
