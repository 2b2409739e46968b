"""Trainings in processes that find torch and Lightning loaded, which alone takes many seconds.

They are forked off a server that has loaded both and does nothing else; where there is no forking
(Windows), each loads them itself.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def fit(arguments: Sequence[str], log: Path) -> None:
    """Train in a process of its own, with the environment that the first one had.

    Args:
        arguments: Of ``vmm``, beginning with "fit".
        log: File for all that it says.

    Raises:
        ValueError: If it fails, with its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        context = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vmm.trainer_cli", "vmm.tasks.watchdog", "vmm.after_fit"])
    process = context.Process(target=_train, args=(list(arguments), log), daemon=True)
    process.start()
    process.join()
    if process.exitcode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ValueError(
            f"a training failed with status {process.exitcode}: "
            f"{lines[-1] if lines else 'it said nothing'} (see {log}; `vmm {' '.join(arguments)}`)"
        )


def _train(arguments: list[str], log: Path) -> None:
    with log.open("wb") as file:
        sys.stdout.flush()
        for stream in (1, 2):  # libraries in C write there, too
            os.dup2(file.fileno(), stream)
    sys.argv = ["vmm", *arguments]
    runpy.run_module("vmm", run_name="__main__", alter_sys=True)
