"""The loader in two workers, beside the same work in one process."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vmm.data.clips import load_frames
from vmm.data.corpora import Mixture
from vmm.data.loader import TrainLoader
from vmm.data.shards import ShardSet
from vmm.data.stream import TrainStream
from vmm.data.transforms import ClipSettings

FRAMES = 8
_BATCH = 8


class _Run(NamedTuple):
    """Of some batches."""

    rate: float
    """Clips per second, after the first ones."""
    cpu_s: float
    """Of a clip, by all processes, without their start."""


def measure_loader(
    name: str, data: bytes, settings: ClipSettings, rounds: int, batches: int, workers: int = 2
) -> dict[str, Any]:
    """Compare the loader with one process that does the same, and with decoding alone.

    Args:
        name: Of the clip.
        data: Its file, which all samples have.
        settings: Of the clips.
        rounds: In turns; the best counts.
        batches: Timed in each round.
        workers: Of the loader.

    Returns:
        Clips per second, CPU milliseconds per clip of all processes, and what share of one
        process's work for its CPU time each worker does.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clips-000.tar")
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(2 * _BATCH):
                for extension, content in (("mp4", data), ("txt", b"a clip")):
                    member = tarfile.TarInfo(f"{number:04d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        shards = ShardSet(path, "video")
        found: dict[str, list[_Run]] = {"loader": [], "one_process": [], "decoding": []}
        for _ in range(rounds):
            found["loader"].append(_loading(shards, settings, workers, batches))
            found["one_process"].append(_loading(shards, settings, 0, batches))
            found["decoding"].append(_decoding(shards, settings, _BATCH * batches // 4))
    row: dict[str, Any] = {"clip": name, "workers": workers}
    row |= {f"{what}_clips_per_s": max(run.rate for run in runs) for what, runs in found.items()}
    least = {what: 1e3 * min(run.cpu_s for run in runs) for what, runs in found.items()}
    row |= {f"{what}_cpu_ms": ms for what, ms in least.items()}
    return row | {"efficiency": least["one_process"] / least["loader"]}


def _loading(shards: ShardSet, settings: ClipSettings, workers: int, batches: int) -> _Run:
    """Load batches; what a loader of a few batches takes is its start."""
    few = 2 * max(workers, 1)
    start, arrivals = _load(shards, settings, workers, few)
    used, arrivals = _load(shards, settings, workers, few + batches)
    # Batches are ready in pairs: count from one to another of the same worker.
    timed = batches // max(workers, 1) * max(workers, 1)
    rate = _BATCH * timed / (arrivals[few - 1 + timed] - arrivals[few - 1])
    return _Run(rate, (used - start) / (_BATCH * batches))


def _load(
    shards: ShardSet, settings: ClipSettings, workers: int, batches: int
) -> tuple[float, list[float]]:
    """Return CPU seconds, and when each batch came."""
    sources = {"video": Mixture({"": shards})}
    stream = TrainStream(sources, {"video": _BATCH}, settings, steps_per_epoch=batches)
    before = _cpu_seconds()
    arrivals = [time.perf_counter() for _ in TrainLoader(stream, workers, lambda: 0)]
    return _cpu_seconds() - before, arrivals


def _decoding(shards: ShardSet, settings: ClipSettings, count: int) -> _Run:
    """Only decode, in this process."""
    generator = torch.Generator().manual_seed(0)
    raws = [shards.read(0, i % len(shards)) for i in range(count)]
    start, before = time.perf_counter(), _cpu_seconds()
    for raw in raws:
        load_frames(raw, "video", settings, generator)
    return _Run(count / (time.perf_counter() - start), (_cpu_seconds() - before) / count)


def _cpu_seconds() -> float:
    """CPU time of this process and of the children that ended."""
    return sum(os.times()[:4])
