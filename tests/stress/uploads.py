"""Damaged films are uploaded to the page of ``vmm app``: answers or refusals, and nothing changes.

    python -m tests.stress.uploads --uploads 200 --out tests/stress/results

The films are those of ``tests.stress.media``. After them the page finds what it found before, the
process is the same, and neither a file nor a traceback is left.
"""

import argparse
import json
import signal
import tempfile
import time
from pathlib import Path

from tests.export.runs import write_run
from tests.search.served import Served, hostile, make_index, torment
from tests.stress.resume import write_result
from vmm.export.command import main as export

ROOT = Path(__file__).parents[2]


def memory_mb(process):
    """Return how much memory a process has, in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main():
    """Serve a small index, upload, and write what came."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a dated report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder / "run", seed=0)
        assert export([str(folder / "run"), str(folder / "encoder"), "--license", "mit"]) == 0
        make_index(folder, folder / "encoder", ROOT)
        served = Served(folder, ROOT)
        try:
            began, files = time.time(), hostile(options.uploads, options.seed)
            torment(served, files[:8])
            before = memory_mb(served.process)
            statuses = torment(served, files)
            result = {
                "uploads": len(files),
                "answers": {f"{route} {status}": n for (route, status), n in statuses.items()},
                "memory_mb": [round(before), round(memory_mb(served.process))],
                "seconds": round(time.time() - began, 1),
            }
        finally:
            ended = served.end(signal.SIGTERM)
        assert ended == 0 and list(served.temporary.iterdir()) == []
    print(json.dumps(result, indent=1))
    if options.out:
        write_result(options.out, "uploads", result)


if __name__ == "__main__":
    main()
