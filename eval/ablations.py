"""``make ablations``: what helps and what is luck, in small trainings on motions.

    python -m eval.ablations --short
    python -m eval.ablations --study 'scan order' --study mask --seeds 5

Each study compares variants of one thing, trained with the same seeds, with the first of them. It
writes ``ablations.html``, which says in words what the numbers show and what they do not, and
``ablations.json``. A training that has ended is not repeated, so a call that was stopped goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.text_output import say

DATA = Path("data/ablations")
"""As the recipes name it."""
_CLIPS = "--image-size 32 --frames 8 --train 2048 --val 24 --test 384"
_STEPS = {"short": 800, "long": 1200}


def main(args: Sequence[str] | None = None) -> int:
    """Train, compare and write the page; status 2 for a mistake in the arguments."""
    parser = CommandParser(
        prog="python -m eval.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--short",
        action="store_true",
        help="fewer questions, variants and steps: a quarter of the time",
    )
    add("--seeds", type=whole(1), default=3, help="trainings of each variant (default: 3)")
    add("--steps", type=whole(1), help="of each training (default: 1200, or 800 if short)")
    add("--study", action="append", dest="studies", metavar="NAME",
        help="only this one; repeatable")  # fmt: skip
    add("--jobs", type=whole(1), default=os.cpu_count() or 1,
        help="trainings at a time (default: as many as there are processors)")  # fmt: skip
    add("--out", type=Path, default=Path("runs/ablations"), help="default: runs/ablations")
    options = parser.parse_args(args)
    kept = "finished trainings are kept, the same command does the rest"
    return run_to_status("eval.ablations", lambda: _run(options), kept)


def _run(options: argparse.Namespace) -> int:
    # Read when tqdm and torch are loaded, also by the trainings: no bars of evaluations, and one
    # thread, for trainings go on beside each other.
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    from vmm.evaluation.ablation.page import write_results
    from vmm.evaluation.ablation.run import Settings, fit_arguments, run_all
    from vmm.evaluation.ablation.studies import choose, in_order

    studies = choose(options.studies, options.short)
    steps = options.steps or _STEPS["short" if options.short else "long"]
    settings = Settings(
        out=options.out, data=DATA, seeds=options.seeds, steps=steps, jobs=options.jobs
    )
    make = ["-m", "data_prep.motions", "--out", str(DATA), *shlex.split(_CLIPS)]
    subprocess.run([sys.executable, *make], check=True, env=os.environ)
    logging.getLogger("vmm").setLevel(logging.WARNING)
    trainings = in_order(studies)
    results = run_all(trainings, settings, partial(print, flush=True))
    commands = {t.key(): shlex.join(["vmm", *fit_arguments(t, 1, settings)]) for t in trainings}
    card = {
        "clips": f"python {shlex.join(make)}",
        "trainings": f"{len(results)}, of {steps} steps each",
        "seeds": str(options.seeds),
        "form": "short" if options.short else "long",
        "test": "384 clips of unseen combinations, one view, the last weights",
    }
    words = write_results(options.out, studies, results, commands, card)
    say("\n".join([*words, "", f"page: {options.out / 'ablations.html'}"]), lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
