"""SIGKILL to ``vmm fit`` at random moments; ``--resume`` must end with the very same weights.

    python -m tests.stress.kills --kills 200 --out tests/stress/results

Half of the kills come at any moment, half while a checkpoint is being written. After each the same
command goes on, once on the same number of processes: from its first batch to its last, samples and
weights are those of a run that was never killed, bit for bit, and nothing half-written is left.
``--from 2 --to 1`` goes on with another number of processes, where the samples must be the same.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from tests.stress.fits import Fit
from tests.stress.resume import write_result
from vmm.models.weight_files import refuse_damaged


def options(batches):
    """A run of so many batches that saves after every second one, and validates once."""
    return [
        f"--data.init_args.steps_per_epoch={batches}",
        *("--last_checkpoint.every_n_train_steps=2", f"--trainer.val_check_interval={batches - 5}"),
        *("--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0"),
    ]


def kill_once(folder, number, rng, span, choice):
    """Kill a run and let it go on; give what is wrong with the second one, and where it began."""
    name = f"run-{number}"
    more = [*options(choice.batches), *choice.more]
    run = Fit(folder, name, *more, ranks=choice.before, log=f"{name}-a")
    run.until(1)
    if number % 2:
        time.sleep(rng.uniform(0, span))
    else:
        run.until(rng.randrange(2, choice.batches - 1))
        end = time.monotonic() + 20
        writing = run.run / "checkpoints"
        while time.monotonic() < end and not [*writing.glob(".*.partial")]:
            time.sleep(0.0005)
    run.kill()
    torn = [path.name for path in (run.run / "checkpoints").glob(".*.partial")]
    again = Fit(folder, name, *more, "--resume", ranks=choice.after, log=f"{name}-b")
    status = again.wait()
    left = [path.name for path in (again.run / "checkpoints").glob(".*.partial")]
    return run, again, status, torn, left


def drill(folder, choice):
    """Kill so many runs; give the figures."""
    reference = Fit(
        folder, "reference", *options(choice.batches), *choice.more, ranks=choice.before
    )
    started = time.monotonic()
    reference.until(1)
    begun = time.monotonic()
    if reference.wait() != 0:
        raise RuntimeError(reference.output.read_text()[-3000:])
    span = time.monotonic() - begun
    right = reference.steps()
    rng = random.Random(choice.seed)
    wrong, in_writing = [], 0
    for number in tqdm(range(choice.kills), unit="kill"):
        run, again, status, torn, left = kill_once(folder, number, rng, span, choice)
        steps, problems = again.steps(), []
        done = json.loads((again.run / "run.json").read_text())["end"] == "done"
        if status != 0 or not done or (steps and max(steps) != max(right)):
            problems.append(f"status {status}: {again.output.read_text()[-600:]}")
        problems += [f"samples of batch {b}" for b in steps if steps[b][0] != right[b][0]]
        if choice.before == choice.after:
            problems += [f"weights after batch {b}" for b in steps if steps[b][1] != right[b][1]]
        problems += [f"left behind: {name}" for name in left]
        try:
            refuse_damaged(again.run / "checkpoints/last.ckpt")
        except ValueError as error:
            problems.append(str(error))
        in_writing += bool(torn)
        if problems:
            wrong.append(
                {
                    "kill": number,
                    "killed after": max(run.steps(), default=0),
                    "problems": problems[:5],
                }
            )
        shutil.rmtree(run.run)
    return {
        "kills": choice.kills,
        "processes": [choice.before, choice.after],
        "killed while writing": in_writing,
        "batches": choice.batches,
        "seed": choice.seed,
        "seconds": round(time.monotonic() - started),
        "wrong": wrong,
    }


def main():
    """Run the drill; status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="tests.stress.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--batches", type=int, default=24, help="of a run")
    parser.add_argument("--from", type=int, default=1, dest="before", choices=(1, 2))
    parser.add_argument("--to", type=int, default=None, dest="after", choices=(1, 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a dated report")
    choice, choice_more = parser.parse_known_args()
    choice.more, choice.after = choice_more, choice.after or choice.before
    with tempfile.TemporaryDirectory() as folder:
        figures = drill(Path(folder), choice)
    print(json.dumps(figures))
    if choice.out:
        write_result(choice.out, "kills", figures)
    return int(bool(figures["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
