"""SIGTERM, SIGUSR1, Ctrl-C and SIGSTOP to every process of ``vmm fit``, also under torchrun.

    python -m tests.stress.signals --out tests/stress/results

A run that is asked to stop ends within half a minute with its status (75, 130; torchrun says 1),
with a checkpoint of the last step that any process did, and leaves no process. One of which a
process is killed or stopped for good ends with status 69 and names it. torchrun dies of SIGUSR1 and
SIGKILL; its processes save and end.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from tests.stress.fits import Fit
from tests.stress.resume import write_result
from vmm.tasks.resume import steps_of

STATUS = {"TERM": 75, "USR1": 75, "INT": 130, "KILL": 69, "STOP": 69}
TARGETS = ("one", "rank 0", "rank 1", "both", "group", "torchrun", "torchrun's rank 1")
LONG = (
    "--data.init_args.steps_per_epoch=4000",
    "--trainer.limit_val_batches=0",
    "--watchdog.silence=5",
)


def send(run, target, number):
    """Send a signal to what the target names."""
    if target == "group":
        os.killpg(run.process.pid, number)
        return
    ranks = {"one": [0], "rank 0": [0], "rank 1": [1], "both": [0, 1], "torchrun's rank 1": [1]}
    pids = [run.process.pid] if target == "torchrun" else [run.pid(r) for r in ranks[target]]
    for pid in pids:
        os.kill(pid, number)


def cell(folder, target, name, rng):
    """Send one signal; give what is wrong, and how long the end took."""
    label = f"{target}-{name}".replace(" ", "_").replace("'", "")
    torchrun = target.startswith("torchrun")
    run = Fit(folder, label, *LONG, ranks=1 if target == "one" else 2, torchrun=torchrun)
    run.until(4)
    time.sleep(rng.uniform(0, 0.4))
    started = time.monotonic()
    send(run, target, getattr(signal, f"SIG{name}"))
    status = run.wait(60)
    orphaned = target == "torchrun" and name in ("USR1", "KILL")
    while orphaned and run.living() and time.monotonic() < started + 60:
        time.sleep(0.05)
    took = time.monotonic() - started
    time.sleep(1)
    problems = [f"process {pid} is left" for pid in run.living()]
    run.kill()
    expected = -getattr(signal, f"SIG{name}") if orphaned else 1 if torchrun else STATUS[name]
    if status != expected or took > 30:
        problems.append(f"status {status} after {took:.1f} s: {run.output.read_text()[-500:]}")
    if STATUS[name] != 69 or orphaned:
        last = run.run / "checkpoints/last.ckpt"
        done = max(line["batch"] for rank in range(run.ranks) for line in run.lines(rank))
        if not last.is_file() or steps_of(last) < done:
            problems.append(f"{done} steps were done and are not saved")
    elif "process 1 of 2" not in run.output.read_text():
        problems.append("it does not name the process")
    return problems, took


def main():
    """Run the drill; status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="tests.stress.signals", description=__doc__)
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--signals", nargs="+", default=["TERM", "USR1", "INT"], choices=STATUS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a dated report")
    choice = parser.parse_args()
    rng = random.Random(choice.seed)
    cells = [(target, name) for target in choice.targets for name in choice.signals]
    if choice.targets == TARGETS:
        cells += [("rank 1", "KILL"), ("rank 1", "STOP"), ("torchrun", "KILL")]
    begun, slowest, wrong = time.monotonic(), 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for target, name in tqdm(cells, unit="signal"):
            problems, took = cell(Path(folder), target, name, rng)
            slowest = max(slowest, took)
            if problems:
                wrong.append({"target": target, "signal": name, "problems": problems})
    figures = {
        "signals": len(cells),
        "slowest end, s": round(slowest, 1),
        "seed": choice.seed,
        "seconds": round(time.monotonic() - begun),
        "wrong": wrong,
    }
    print(json.dumps(figures))
    if choice.out:
        write_result(choice.out, "signals", figures)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
