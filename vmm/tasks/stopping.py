"""Signals that end a training: noted at once, obeyed by all processes after the same step."""

from __future__ import annotations

import logging
import os
import signal
import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from vmm.command_line import PREEMPTED
from vmm.ctrl_c import STOPPED, raises
from vmm.portable import STOP_SIGNALS

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(minutes=10)
"""For a process that does not come to the end of a step."""


class Stopped(KeyboardInterrupt):
    """Ends a run between two steps.

    Args:
        number: The signal.
        kept: What is done and saved, as the end of a sentence.
    """

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(kept)
        ctrl_c = number == signal.SIGINT
        self.status = STOPPED if ctrl_c else PREEMPTED
        self.by = "Ctrl-C" if ctrl_c else signal.Signals(number).name


class StopSignals:
    """Ctrl-C, SIGTERM and SIGUSR1, to whichever process they come.

    Handlers only note the signal: Lightning's own calls a collective in the middle of whatever a
    process is doing, and waits there for ever for the others. A second Ctrl-C stops at once.

    That torchrun is gone counts as SIGTERM: of SIGUSR1 or SIGKILL it dies and tells nobody.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._listens = False
        self._old: dict[int, object] = {}
        self._group: Any = None
        self._torchrun: int | None = None

    def begin(self) -> None:
        """Note signals from here on; called by all processes together."""
        if self._listens:
            return
        self._listens, self._noted = True, 0
        self._torchrun = os.getppid() if dist.is_torchelastic_launched() else None
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C may mean something else here, or nothing, as in what a script leaves behind.
            heard = STOP_SIGNALS if raises() else STOP_SIGNALS[1:]
            self._old = {number: signal.signal(number, self._hear) for number in heard}
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def end(self) -> None:
        """Let signals mean again what they meant before."""
        for number, handler in self._old.items():
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)  # type: ignore[arg-type]
        self._listens, self._old, self._group = False, {}, None

    def asked(self, due: bool = False) -> tuple[int, bool]:
        """Agree on what any process got or wants; called by all processes together.

        Args:
            due: Whether this process's clock says that it is time to save.

        Returns:
            The signal that any process got, 0 for none, and whether any process's time has come.
        """
        if self._torchrun not in (None, os.getppid()):
            logger.warning("torchrun is gone; stopping at the end of this step")
            self._torchrun, self._noted = None, self._noted or signal.SIGTERM
        if self._group is None:
            return self._noted, due
        noted = torch.tensor([self._noted, due], dtype=torch.int64, device="cpu")
        dist.all_reduce(noted, dist.ReduceOp.MAX, group=self._group)
        return int(noted[0]), bool(noted[1])

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number
        again = "; Ctrl-C again stops at once and saves nothing" * (number == signal.SIGINT)
        logger.info("stopping at the end of this step%s", again)
