"""The same command goes on: the run's folder, its newest whole checkpoint, its curves."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import yaml
from lightning.pytorch.loggers import CSVLogger

from vmm.models.weight_files import load_plain, refuse_damaged
from vmm.portable import lock as lock_file
from vmm.whole import PARTIAL

logger = logging.getLogger(__name__)

METRICS, LOCK = "metrics.csv", ".lock"
_OF_PREDICT = b"\nreturn_predictions:"
"""A line of recipes that ``vmm predict`` alone writes."""
_KEPT = "metrics-before.csv"
"""The curves while the logger begins anew, which deletes its file."""


def newest_run(folder: Path) -> Path | None:
    """Find the youngest run among versions of one name; None if there is none.

    A folder of ``vmm predict`` is none: nothing was trained in it.
    """
    recipes = folder.glob("*/config.yaml")
    runs = [path.parent for path in recipes if _OF_PREDICT not in path.read_bytes()]
    return max(runs, key=lambda run: (run / "config.yaml").stat().st_ctime_ns, default=None)


def newest_whole(run: Path) -> Path | None:
    """Find the newest checkpoint of a run that is complete; damaged ones are passed over, and said.

    Args:
        run: The run's folder.

    Returns:
        The file; None if there is none.
    """
    folder = run / "checkpoints"
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            refuse_damaged(path)
            steps_of(path)
            return path
        except ValueError as error:
            logger.warning("%s; taking the one before", error)
    return None


def steps_of(checkpoint: Path) -> int:
    """Read how many steps a checkpoint has done.

    Raises:
        ValueError: If it is none of a run.
    """
    content = load_plain(checkpoint, mmap=True, map_location="meta")
    steps = content.get("global_step") if isinstance(content, dict) else None
    if not isinstance(steps, int):
        raise ValueError(f"{checkpoint} is no checkpoint of a run")
    return steps


def lock(run: Path) -> IO[bytes]:
    """Keep other processes from training in a folder, as long as the file is open.

    On a drive without locks it says that it cannot.

    Raises:
        ValueError: If one does already.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = (run / LOCK).open("ab")
    try:
        lock_file(file)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"another process trains in {run}; wait for it, or give this one a version of its own "
            "(--trainer.logger.init_args.version NAME)"
        ) from error
    except OSError as error:
        logger.warning(
            "%s cannot be locked (%s); see to it that no other process trains there", run, error
        )
    return file


def sweep(run: Path) -> None:
    """Remove what killed writers left of checkpoints, unless a process is training there."""
    left = list((run / "checkpoints").glob(f".*{PARTIAL}"))
    if not left:
        return
    # Also where a drive has no locks, or the run is somebody else's, nobody knows who writes.
    with suppress(OSError), (run / LOCK).open("ab") as file:
        lock_file(file)
        for path in left:
            path.unlink(missing_ok=True)


def continue_curves(curves: CSVLogger, steps: int) -> None:
    """Let a logger append to the file that is there, without what comes after a step.

    Args:
        curves: Before its first use.
        steps: Steps that are done and not done again.
    """
    folder = Path(curves.log_dir)
    file, kept = folder / METRICS, folder / _KEPT
    if file.is_file() and not kept.is_file():
        file.replace(kept)
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    if kept.is_file():
        with kept.open(encoding="utf-8", newline="") as old:
            reader = csv.DictReader(old)
            rows = [row for row in reader if row.get("step", "").isdigit()]
            columns = list(reader.fieldnames or [])
    writer = curves.experiment
    writer.metrics_keys = columns
    if columns:
        with file.open("w", encoding="utf-8", newline="") as new:
            table = csv.DictWriter(new, columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(row for row in rows if int(row["step"]) < steps)
    kept.unlink(missing_ok=True)


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say which settings two recipes do not share, one by one."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}, key=str):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {before!r} and is {now!r}"


def say_differences(run: Path, recipe: str) -> None:
    """Say in which settings a run goes on otherwise than it began.

    Args:
        run: The run's folder.
        recipe: The recipe of now.
    """
    path = run / "config.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for line in differences(before, yaml.safe_load(recipe)) if before else ():
        if not line.startswith(("trainer.logger.", "resume ")):
            logger.info("other than before: %s", line)
