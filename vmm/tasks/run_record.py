"""``run.json``: what became of a run, for what starts runs and looks after them."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L

from vmm.command_line import BAD_NUMBERS, LOST, MISTAKE, PREEMPTED
from vmm.ctrl_c import STOPPED
from vmm.data.datamodules import run_folder
from vmm.runs import RECORD
from vmm.whole import whole_file

FILE_NAME = RECORD
ENDS = {
    0: "done",
    1: "defect",
    MISTAKE: "mistake",
    BAD_NUMBERS: "numbers not finite",
    LOST: "process lost",
    PREEMPTED: "preempted",
    STOPPED: "stopped",
}
"""Exit status of ``vmm fit`` -> what ``run.json`` says. While it trains it says "running", and
after a kill that nobody could hear, too; ``pid`` and ``host`` tell whether it still does."""


class RunRecord(L.Callback):
    """Keep ``run.json`` in the run's folder: ``end`` and ``status`` of ``ENDS``, ``step``.

    What is wrong with the numbers of validation stands under ``leaks``.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._running = False
        self._lost = False

    @property
    def folder(self) -> Path | None:
        """Of a run that trains; None before."""
        return self._folder if self._running else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the folder, for which all processes have to ask together."""
        self._folder, self._running, self._lost = run_folder(trainer), False, False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Say that it trains; not before, as a run that cannot begin leaves nothing."""
        if not self._running:
            self._running = True
            self.write(trainer, None)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that it is done."""
        self.write(trainer, 0)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Say how it ended, if it had begun: else the run is what it was before."""
        if trainer.state.fn == "fit" and self._running:
            usual = {KeyboardInterrupt: STOPPED, ValueError: MISTAKE, OSError: MISTAKE}
            kinds = (status for kind, status in usual.items() if isinstance(exception, kind))
            status = int(getattr(exception, "status", next(kinds, 1)))
            self.write(trainer, status, str(exception))
            if trainer.is_global_zero:  # for the run's page
                exception.run = self._folder  # type: ignore[attr-defined]
        elif trainer.state.fn == "fit" and trainer.is_global_zero and trainer.loggers:
            _remove_empty(Path(trainer.loggers[0].log_dir or ""))

    def write(self, trainer: L.Trainer, status: int | None, said: str = "") -> None:
        """Write the file, if this is the first process.

        Args:
            trainer: Of the run.
            status: Of its end; None while it trains.
            said: Why it ended.
        """
        end = "running" if status is None else ENDS.get(status, ENDS[1])
        folder = self._folder
        if folder is None or not trainer.is_global_zero or self._lost:
            return  # what a lost process brings about is not why the run ended
        self._lost = status == LOST
        if not (folder / "config.yaml").is_file():
            return  # it did not begin
        content = {
            "end": end,
            "status": status,
            "step": trainer.global_step,
            "said": said,
            "leaks": getattr(getattr(trainer, "datamodule", None), "leaks", []),
            "pid": os.getpid(),
            "host": platform.node(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            with whole_file(folder / FILE_NAME, durable=False) as file:
                file.write_text(json.dumps(content), encoding="utf-8")
        except OSError:
            pass  # a disk that is full or gone ends the run, or not, where it matters


def _remove_empty(folder: Path) -> None:
    """Remove what a run that did not begin has made: a folder with curves of no step.

    The folder of its recipe goes, too, unless other runs are in it.
    """
    inside = {path.name for path in folder.glob("*")} if folder.is_dir() else {""}
    curves = folder / "metrics.csv"
    if inside - {curves.name, ".lock"} or (curves.exists() and curves.stat().st_size):
        return
    with suppress(OSError):
        for name in inside:
            (folder / name).unlink()
        folder.rmdir()
        if folder.parent.resolve() != Path.cwd():
            folder.parent.rmdir()
