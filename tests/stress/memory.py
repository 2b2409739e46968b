"""Memory of the loader over many epochs.

    python -m tests.stress.memory --epochs 50 --out tests/stress/results

Two runs over the same shards, a tenth of them broken: epochs in one process without workers, which
reads and decodes all of it, and one endless epoch of as many passes with two workers that live as
long. The resident memory of each process is taken after every pass.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.stress.resume import make_stream, write_data
from vmm.data.faults import BadSamples
from vmm.data.loader import TrainLoader

PASSES_TO_SETTLE = 15


def resident(process):
    """Resident memory of a process in MiB, without what it shares with its parent."""
    fields = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in fields[1:]}
    return (int(values["Private_Clean"]) + int(values["Private_Dirty"])) / 1024


def in_one_process(folder, epochs):
    """MiB after each epoch of a loader without workers."""
    stream = make_stream(folder, bad=BadSamples(str(folder / "alone.jsonl")))
    done, sizes = 0, []
    loader = TrainLoader(stream, 0, lambda: done)
    for _ in range(epochs):
        for batch in loader:
            done += 1
            del batch
        sizes.append(resident(os.getpid()))
    return sizes


def in_workers(folder, passes):
    """MiB of (the training process, both workers) after each pass of one long epoch."""
    stream = make_stream(
        folder, bad=BadSamples(str(folder / "workers.jsonl")), steps_per_epoch=23 * passes
    )
    sizes = []
    for step, batch in enumerate(TrainLoader(stream, 2, lambda: 0), start=1):
        del batch
        if step % 23 == 0 and step < 23 * passes - 8:  # a worker that is done is gone
            workers = [child for child in multiprocessing.active_children() if child.daemon]
            sizes.append([resident(os.getpid()), sum(resident(child.pid) for child in workers)])
    return sizes


def growth(sizes):
    """MiB that were added after the first passes."""
    settled = max(sizes[: min(PASSES_TO_SETTLE, len(sizes) // 2)])
    return round(max(sizes[-3:]) - settled, 2)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--limit", type=float, default=2.0, help="MiB that may be added")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    begun = time.time()
    with tempfile.TemporaryDirectory(prefix="vmm-stress-") as name:
        folder = Path(name)
        write_data(folder)
        alone = in_one_process(folder, options.epochs)
        parent, workers = zip(*in_workers(folder, options.epochs), strict=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "epochs": options.epochs,
        "samples": options.epochs * 23 * 7,
        "seconds": round(time.time() - begun),
        "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "growth MiB": {
            "one process": growth(alone),
            "training process": growth(parent),
            "two workers": growth(workers),
        },
        "MiB": {
            name: [round(size, 2) for size in sizes]
            for name, sizes in (("one process", alone), ("training process", parent),
                                ("two workers", workers))
        },
    }  # fmt: skip
    print(json.dumps({key: value for key, value in result.items() if key != "MiB"}))
    if options.out is not None:
        path = options.out / f"memory_{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    return int(max(result["growth MiB"].values()) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
