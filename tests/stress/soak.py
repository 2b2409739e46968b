"""Hours of ``vmm fit`` with a fault each minute: nothing may grow, and no sample may be missing.

    python -m tests.stress.soak --hours 2 --out tests/stress/results

Most faults are survived: a worker or the whole run stands still for seconds, a batch holds NaN.
Each tenth one ends the run (SIGKILL, SIGTERM, Ctrl-C, a worker that dies), and the same command
goes on with ``--resume``. Memory of its own, open files, threads and processes are those of the
second quarter of a life against its last; the samples of all batches are those of the loader alone.
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
from statistics import median

import lightning as L
import torch
from tqdm import tqdm

from tests.stress.fits import LOG, Fit
from tests.stress.resume import write_result
from vmm.data.demo import WebVideoData

SURVIVED = ("pause a worker", "pause the run", "not a number")
ENDING = ("KILL", "TERM", "INT", "kill a worker")
STATUS = {"KILL": -9, "TERM": 75, "INT": 130, "kill a worker": 69}
OPTIONS = (
    *("--data.init_args.steps_per_epoch=1000000", "--data.init_args.num_workers=2"),
    *("--trainer.val_check_interval=100", "--trainer.limit_val_batches=1"),
    *("--last_checkpoint.every_n_train_steps=50", "--trainer.num_sanity_val_steps=0"),
    "--trainer.callbacks+=tests.stress.soak.BadNumber",
)


class BadNumber(L.Callback):
    """Put NaN into a batch as often as the file ``$STRESS_LOG.bad`` appears."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        bad = Path(f"{os.environ[LOG]}.bad")
        if bad.exists():
            bad.unlink()
            batch["video"][0].fill_(torch.nan)


def look(run):
    """Give what the run has of its own: MiB, open files, threads, processes."""
    process = Path(f"/proc/{run.pid(0)}")
    lines = (process / "smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    threads = (process / "status").read_text().partition("Threads:")[2].split()[0]
    return {
        "MiB": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024,
        "files": len([*(process / "fd").iterdir()]),
        "threads": int(threads),
        "processes": len(run.living()),
    }


def workers(run):
    """List the processes that the run has started."""
    return [pid for pid in run.living() if pid not in (run.process.pid, run.pid(0))]


def survive(run, fault, rng, seconds):
    """Do a fault that the run goes on after."""
    if fault == "not a number":
        Path(f"{run.log}.bad").touch()
        return
    pid = rng.choice(workers(run)) if fault == "pause a worker" else run.pid(0)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def end(run, fault, rng):
    """Do a fault that ends the run; give what is wrong with how it ended."""
    if fault == "kill a worker":
        os.kill(rng.choice(workers(run)), signal.SIGKILL)
    else:
        os.kill(run.pid(0), getattr(signal, f"SIG{fault}"))
    status = run.wait(120)
    time.sleep(5)  # workers see within seconds that nobody is there
    left = len(run.living())
    run.kill()
    if status == STATUS[fault] and not left:
        return []
    return [f"{fault}: status {status}, {left} processes left: {run.output.read_text()[-400:]}"]


def growth(seen):
    """Median of the last quarter less that of the second one, of everything that is looked at."""
    quarter = max(1, len(seen) // 4)
    early, late = seen[quarter : 2 * quarter] or seen, seen[-quarter:]
    return {
        name: round(median(s[name] for s in late) - median(s[name] for s in early), 1)
        for name in seen[0]
    } | {"of MiB": round(median(s["MiB"] for s in early))}


def expected(count):
    """Give the samples of the first batches, by the loader alone."""
    L.seed_everything(42, verbose=False)
    pattern = "data/demo/{}-*.tar"
    data = WebVideoData(
        train_videos=pattern.format("train"),
        train_images=pattern.format("images"),
        val_videos=pattern.format("val"),
        test_videos=pattern.format("test"),
        batch_size=8,
        image_batch_size=8,
        num_frames=1,
        image_size=16,
        steps_per_epoch=1000000,
        crop_scale=(1.0, 1.0),
        positives="caption",
        num_workers=0,
    )
    data.setup("fit")
    batches = iter(data.train_dataloader())
    return [next(batches)["key"] for _ in tqdm(range(count), desc="loader alone", unit="batch")]


def live(folder, number, until, choice, rng):
    """Let one process train, with a fault each period and an ending one at last."""
    more = [*OPTIONS, *(["--resume"] if number else [])]
    run = Fit(folder, "soak", *more, log=f"soak-{number}")
    run.until(1)
    seen, faults = [], []
    for turn in range(choice.faults_of_a_life):
        period_ends = time.monotonic() + choice.period
        while time.monotonic() < period_ends:
            seen.append(look(run))
            time.sleep(min(2, choice.period / 10))
        if turn == choice.faults_of_a_life - 1 or time.monotonic() > until:
            break
        faults.append(rng.choice(SURVIVED))
        survive(run, faults[-1], rng, min(5, choice.period / 5))
    fault = ENDING[number % len(ENDING)]
    problems = end(run, fault, rng)
    return run, {"faults": [*faults, fault], "growth": growth(seen), "problems": problems}


def soak(folder, choice):
    """Train until the time is over; give the figures."""
    rng, lives, given = random.Random(choice.seed), [], {}
    until = time.monotonic() + 3600 * choice.hours
    wrong = []
    with tqdm(total=round(3600 * choice.hours), unit="s") as bar:
        while time.monotonic() < until:
            begun = time.monotonic()
            run, life = live(folder, len(lives), until, choice, rng)
            for line in run.lines():  # after a kill batches are given once more
                before = given.setdefault(line["batch"], line["keys"])
                if before != line["keys"]:
                    wrong.append(f"batch {line['batch']} has other samples than before a kill")
            lives.append(life)
            bar.update(round(time.monotonic() - begun))
    wrong += [problem for life in lives for problem in life["problems"]]
    right = expected(max(given))
    wrong += [
        f"batch {number} is {'missing' if number not in given else 'another'}"
        for number, keys in enumerate(right, 1)
        if given.get(number) != keys
    ]
    for number, life in enumerate(lives):
        if len(life["faults"]) < choice.faults_of_a_life:
            continue  # cut short by the end of the time: still warming up
        grown = life["growth"]
        if grown["MiB"] > 0.05 * grown["of MiB"] or grown["files"] > 0 or grown["threads"] > 0:
            wrong.append(f"life {number} grew: {grown}")
    return {
        "hours": choice.hours,
        "faults": sum(len(life["faults"]) for life in lives),
        "batches": len(right),
        "samples": sum(map(len, right)),
        "seed": choice.seed,
        "lives": lives,
        "wrong": wrong[:20],
    }


def main():
    """Run the soak; status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="tests.stress.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--period", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--faults-of-a-life", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a dated report")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(Path(folder), choice)
    print(json.dumps(figures))
    if choice.out:
        write_result(choice.out, "soak", figures)
    return int(bool(figures["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
