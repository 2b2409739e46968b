"""Train everything that the studies compare, once per seed, and classify with it.

Trainings are processes of their own, several at a time with one thread each. What a training gave
is written when it has ended, so that a later call repeats none; one that was stopped begins anew.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmm.evaluation.ablation.studies import Training
from vmm.evaluation.ablation.training_process import fit
from vmm.evaluation.classification.options import Options as ClassifyOptions
from vmm.evaluation.classification.run import evaluate
from vmm.evaluation.common.results import content_hash
from vmm.whole import whole_file

logger = logging.getLogger(__name__)

_RECIPES = Path("recipes")
_RESULT = "ablation.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How everything is trained.

    Args:
        out: Folder of the runs.
        data: Folder of the clips of ``data_prep.motions``.
        seeds: Trainings of each variant.
        steps: Of each training.
        jobs: Trainings at a time, with one thread each.
    """

    out: Path
    data: Path
    seeds: int
    steps: int
    jobs: int


def fit_arguments(training: Training, seed: int, settings: Settings) -> list[str]:
    """Write the command of a training, without the program."""
    options = {
        "seed_everything": str(seed),
        "data.init_args.steps_per_epoch": str(settings.steps),
        "trainer.logger.init_args.save_dir": str(settings.out),
        "trainer.logger.init_args.name": "runs",
        "trainer.logger.init_args.version": _name(training, seed, settings),
        "trainer.enable_progress_bar": "false",
        **training.options,
    }
    for setting, (other, file) in training.start.items():
        options[setting] = str(run_of(other, seed, settings) / file)
    files = [part for name in training.recipes.split() for part in ("-c", str(_RECIPES / name))]
    return ["fit", *files, *(f"--{name}={value}" for name, value in options.items())]


def _name(training: Training, seed: int, settings: Settings) -> str:
    """Name a run after all that decides it, so that none stands for another of changed recipes."""
    texts = [(_RECIPES / name).read_text(encoding="utf-8") for name in training.recipes.split()]
    started = [_name(start.training, seed, settings) for start in training.start.values()]
    digest = content_hash([training.key(), texts, started, settings.steps])
    return f"{digest}-{seed}"


def run_of(training: Training, seed: int, settings: Settings) -> Path:
    """Give the run directory of a training."""
    return settings.out / "runs" / _name(training, seed, settings)


def run_all(
    trainings: Sequence[Training], settings: Settings, say: Callable[[str], None]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Do all trainings with all seeds, except those that are there.

    Args:
        trainings: Those that others start from before them.
        settings: How.
        say: Takes a line about every one that has ended.

    Returns:
        (key of a training, seed) -> "seconds", and of one that classifies "top_1" on unseen
        combinations, and perhaps "train_top_1", in percent.

    Raises:
        ValueError: If a training fails.
    """
    begun = time.monotonic()
    todo = [(training, seed) for seed in range(1, settings.seeds + 1) for training in trainings]
    futures: dict[tuple[str, int], Future[dict[str, Any]]] = {}
    lock = threading.Lock()
    # One that others wait for is submitted before them, so it never waits for a thread of theirs.
    with ThreadPoolExecutor(settings.jobs) as pool:
        for training, seed in todo:
            needed = [futures[other.training.key(), seed] for other in training.start.values()]
            futures[training.key(), seed] = pool.submit(
                _run, training, seed, settings, needed, lock
            )
        try:
            for done, future in enumerate(as_completed(futures.values()), start=1):
                future.result()
                passed = time.monotonic() - begun
                left = passed / done * (len(todo) - done)
                say(f"{done} of {len(todo)} trainings, {passed:.0f} s, about {left:.0f} s left")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {name: future.result() for name, future in futures.items()}


def _run(
    training: Training,
    seed: int,
    settings: Settings,
    needed: Sequence[Future[Any]],
    lock: threading.Lock,
) -> dict[str, Any]:
    for future in needed:
        future.result()
    run = run_of(training, seed, settings)
    file = run / _RESULT
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found
    begun = time.monotonic()
    shutil.rmtree(run, ignore_errors=True)
    fit(fit_arguments(training, seed, settings), run.with_suffix(".log"))
    result: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1)}
    if training.classifies:
        with lock:  # evaluations share the log and the libraries' threads
            result |= _classify(training, run, settings.data)
    with whole_file(file) as part:
        part.write_text(json.dumps(result), encoding="utf-8")
    return result


def _classify(training: Training, run: Path, data: Path) -> dict[str, Any]:
    """Give the accuracies on clips of unseen combinations, and perhaps on some of the training."""
    parts = {"": "test-*.tar"} | ({"train_": "train-000000.tar"} if training.on_training else {})
    found = {}
    for part, pattern in parts.items():
        options = ClassifyOptions(
            run=run,
            checkpoint="last",
            shards=str(data / pattern),
            out=run / f"{part}classified",
            batch_size=64,
        )
        found[f"{part}top_1"] = evaluate(options).numbers["top_1"]
    return found
