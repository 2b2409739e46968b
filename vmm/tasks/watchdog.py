"""Processes and workers that died or do not come on: noticed, named, and the run ended."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning as L
from torch.distributed import distributed_c10d

from vmm.command_line import LOST
from vmm.distributed import rank, world_size
from vmm.tasks.run_record import RunRecord
from vmm.text_output import complain

logger = logging.getLogger(__name__)

_HOST = platform.node()
_END = "its end"
_PAGE_SECONDS = 20


class Lost(ValueError):
    """Ends a run of which a process is gone or stuck."""

    status = LOST
    run: Path | None = None
    """Its folder, if this process keeps it."""


class Sign(NamedTuple):
    """A sign of life of a process."""

    host: str
    pid: int
    things: int
    """What it has begun so far; processes that train together begin the same things."""
    doing: str
    lasts: float
    """Seconds since it began that."""
    number: int
    """Of this sign."""


class Peer(NamedTuple):
    """What is known of another process."""

    sign: Sign
    heard: float
    """When its last sign came, by this process's clock."""


def who_holds_up(
    own: Sign, peers: dict[int, Peer], now: float, silence: float, patience: float
) -> tuple[int, str] | None:
    """Find a process that others wait for in vain.

    Args:
        own: Of this process.
        peers: The others by their numbers.
        now: This process's clock, in seconds.
        silence: See ``Watchdog``.
        patience: See ``Watchdog``.

    Returns:
        Its number and what is known of it, as the end of a sentence; None if there is none.
    """
    for number, (sign, heard) in peers.items():
        if sign.doing.startswith(_END):
            continue
        where = f"(pid {sign.pid} on {sign.host}); it was at {sign.doing}"
        if now - heard > silence:
            return number, f"has given no sign of life for {now - heard:.0f} s {where}"
        if own.lasts > patience and sign.things < own.things:
            return number, f"does not come on {where}, for {sign.lasts:.0f} s"
    return None


class Watchdog(L.Callback):
    """End a run that waits for a process or a worker in vain, with status 69.

    Two threads of each process tell the others through the store of ``torch.distributed`` what it
    is doing, and look at what they do; nothing is added to a step. A process that is suspended with
    all others (a suspended job) is not silent.

    Args:
        silence: Seconds without a sign of life after which a process, or a stopped worker that is
            waited for, is given up.
        patience: Seconds that a process may do one thing while another one waits for it.
    """

    write_page: ClassVar[Callable[[Path], None] | None] = None
    """Writes the page of a run that is ended from here; nothing comes after that could."""

    def __init__(self, silence: float = 45, patience: float = 900) -> None:
        if not 0 < silence <= patience:
            raise ValueError(
                f"watchdog.silence {silence} and watchdog.patience {patience} are seconds; set "
                "both above 0, and the first not above the second"
            )
        self.silence, self.patience = silence, patience
        self._interval = min(5.0, silence / 6)
        self._own = Sign(_HOST, os.getpid(), 0, "the start", 0.0, 0)
        self._since = self._looked = self._answered = time.monotonic()
        self._waits_for_data = False
        self._peers: dict[int, Peer] = {}
        self._stopped: dict[int, float] = {}
        self._over = threading.Event()
        self._started: list[subprocess.Popen[Any]] = []
        self._ended: dict[int, float] = {}
        self._trainer: L.Trainer | None = None
        self._teller: threading.Thread | None = None

    # What this process is doing.

    def _do(self, what: str, waits_for_data: bool = False) -> None:
        self._since, self._waits_for_data = time.monotonic(), waits_for_data
        self._own = self._own._replace(things=self._own.things + 1, doing=what)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to tell and to look."""
        self._trainer, self._over = trainer, threading.Event()
        self._own = Sign(_HOST, os.getpid(), 0, "the start", 0.0, 0)
        self._since = self._looked = self._answered = time.monotonic()
        self._peers, self._stopped, self._ended = {}, {}, {}
        self._started = _take_over(trainer)
        if world_size() > 1:
            self._teller = threading.Thread(target=self._exchange, args=(self._over,), daemon=True)
            self._teller.start()
        threading.Thread(target=self._watch, args=(self._over,), daemon=True).start()

    def on_train_start(self, *unused: Any) -> None:
        """Note that the first batch is waited for."""
        self._do("the first batch", waits_for_data=True)

    def on_train_batch_start(self, trainer: L.Trainer, *unused: Any) -> None:
        """Note the step."""
        self._do(f"step {trainer.global_step}")

    def on_before_backward(self, trainer: L.Trainer, *unused: Any) -> None:
        """Note how far it is."""
        self._do(f"step {trainer.global_step}, gradients")

    def on_before_optimizer_step(self, trainer: L.Trainer, *unused: Any) -> None:
        """Note how far it is."""
        self._do(f"step {trainer.global_step}, new weights")

    def on_train_batch_end(self, trainer: L.Trainer, *unused: Any) -> None:
        """Note that the next batch is waited for."""
        self._do(f"the batch for step {trainer.global_step}", waits_for_data=True)

    def on_validation_start(self, *unused: Any) -> None:
        """Note that validation begins."""
        self._do("the first batch of validation", waits_for_data=True)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Note the batch."""
        self._do(f"batch {batch_idx} of validation")

    def on_validation_batch_end(self, *unused: Any) -> None:
        """Note that the next batch is waited for."""
        self._do("a batch of validation", waits_for_data=True)

    def on_validation_epoch_end(self, *unused: Any) -> None:
        """Note that the measures are taken."""
        self._do("the measures of validation")

    def on_save_checkpoint(self, trainer: L.Trainer, *unused: Any) -> None:
        """Note that a checkpoint is written."""
        self._do(f"the checkpoint of step {trainer.global_step}")

    def teardown(self, *unused: Any, **named: Any) -> None:
        """Stop looking, and tell the others that this is no silence."""
        self._leave(_END)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Say who is gone, if this process failed because a worker or another process did."""
        if isinstance(exception, RuntimeError | ConnectionError | EOFError):
            try:
                gone = self._dead_worker(exception)
            except RuntimeError as error:  # PyTorch's, in the handler of a signal that comes now
                gone = self._dead_worker(error)
            if not gone and isinstance(exception, RuntimeError):
                gone = self._find_gone()
            if gone:
                exception.lost = f"{gone}. Go on with --resume"  # type: ignore[union-attr]
                self._record(f"{gone}. Go on with --resume")
        self._leave(f"{_END}, {type(exception).__name__}: {str(exception)[:200]}")

    def _leave(self, words: str) -> None:
        if not self._over.is_set():
            self._do(words)
            self._over.set()
            if self._teller is not None:
                self._teller.join(1)

    def _dead_worker(self, error: BaseException) -> str:
        """Say which worker is gone and what they all read, if an error is about that."""
        said = _of_worker(error)
        peers = {peer.sign.pid for peer in self._peers.values()}
        given_up = time.monotonic() + (0 if isinstance(error, RuntimeError) else 1)
        while not said and time.monotonic() < given_up:  # its pipe is closed before it is dead
            dead = [pid for pid in _children() - peers if _state(pid) == "Z"]
            said = f"the worker with pid {dead[0]} is gone" if dead else ""
            time.sleep(0.02)
        return said and said + ("" if "were reading" in said else self._reading())

    def _reading(self) -> str:
        module: Any = getattr(self._trainer, "datamodule", None)
        return "" if module is None else f"; the workers were reading: {module.reading()}"

    def _find_gone(self) -> str:
        """Name a process that has ended; it takes a moment until one that was killed is seen."""
        peers = self._peers
        near = all(peer.sign.host == _HOST for peer in peers.values())
        given_up = time.monotonic() + (3 if near else 3 * self._interval)
        while peers and time.monotonic() < given_up:
            for number, (sign, heard) in self._peers.items():
                dead = sign.host == _HOST and _state(sign.pid) in ("", "Z")
                silent = time.monotonic() - heard > 2 * self._interval
                if dead or silent or sign.doing.startswith(_END):
                    where = f"(pid {sign.pid} on {sign.host}) is gone; it was at {sign.doing}"
                    return f"process {number} of {world_size()} {where}"
            time.sleep(0.1)
        return ""

    def _record(self, said: str) -> Path | None:
        """Record why the run ended; give its folder, if this process keeps it."""
        callbacks: list[L.Callback] = getattr(self._trainer, "callbacks", [])
        kept = None
        for callback in callbacks:
            if isinstance(callback, RunRecord) and self._trainer is not None:
                callback.write(self._trainer, LOST, said)
                kept = callback.folder if self._trainer.is_global_zero else None
        return kept

    # What the others do.

    def _exchange(self, over: threading.Event) -> None:
        """Tell the others what this process does, and hear what they do, until it is over."""
        store = distributed_c10d._get_default_store().clone()  # one that only this thread uses
        others = [number for number in range(world_size()) if number != rank()]
        number, ended = 0, False
        try:
            while not ended:
                ended, number = over.wait(self._interval if number else 0), number + 1
                lasts = time.monotonic() - self._since
                sign = self._own._replace(lasts=lasts, number=number)
                store.set(f"vmm/{rank()}", json.dumps(sign))
                for other in others:
                    if store.check([f"vmm/{other}"]):
                        self._hear(other, Sign(*json.loads(store.get(f"vmm/{other}"))))
                self._answered = time.monotonic()
        except (RuntimeError, ValueError) as error:  # the process that keeps the store is gone
            logger.debug("no more signs of life: %s", error)

    def _hear(self, number: int, sign: Sign) -> None:
        before = self._peers.get(number)
        if before is None or before.sign.number != sign.number:
            self._peers[number] = Peer(sign, time.monotonic())

    def _watch(self, over: threading.Event) -> None:
        """End the run when it cannot go on."""
        while not over.wait(self._interval):
            now = time.monotonic()
            if now - self._looked > 3 * self._interval:  # this process was suspended, too
                self._answered = now
                self._peers = {n: Peer(peer.sign, now) for n, peer in self._peers.items()}
            self._looked = now
            own = self._own._replace(lasts=now - self._since)
            peers = self._peers
            if now - self._answered > self.silence:  # no news of anybody: 0 keeps the store
                peers = {0: peers[0]._replace(heard=self._answered)} if 0 in peers else {}
            found = who_holds_up(own, peers, now, self.silence, self.patience)
            found = found or self._ended_badly(now)
            if found:
                self._end(f"process {found[0]} of {world_size()} {found[1]}", found[0])
            if self._waits_for_data and (said := self._stuck_worker(own, now)):
                self._end(said, None)

    def _ended_badly(self, now: float) -> tuple[int, str] | None:
        """Name a process started from here that has ended, and what of, while this one goes on."""
        for number, process in enumerate(self._started, rank() + 1):
            since = self._ended.setdefault(number, now) if process.poll() else now
            if now - since > 2 * self._interval:  # one that all end of ends this one, too
                peer = self._peers.get(number)
                at = f"; it was at {peer.sign.doing}" if peer else ""
                status = f"has ended with status {process.returncode}"
                return number, f"{status} (pid {process.pid} on {_HOST}){at}"
        return None

    def _stuck_worker(self, own: Sign, now: float) -> str:
        """Say which worker is stopped, or that no batch comes."""
        peers = {peer.sign.pid for peer in self._peers.values()}
        stopped = {pid for pid in _children() - peers if _state(pid) in ("T", "t")}
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        reading = self._reading()
        for pid, since in self._stopped.items():
            if now - since > self.silence:
                return f"the worker with pid {pid} is stopped, at {own.doing}{reading}"
        late = own.lasts > self.patience
        return f"{own.doing} does not come for {own.lasts:.0f} s{reading}" if late else ""

    def _end(self, said: str, peer: int | None) -> None:
        """End this process now: its main thread waits where nothing can reach it."""
        if self._over.is_set():
            return
        said += ". Go on with --resume; was it only slow? Raise watchdog.silence or .patience"
        complain(f"vmm fit: error: {said}")
        run = self._record(said)
        sign = self._peers[peer].sign if peer in self._peers else None
        if sign is not None and sign.host == _HOST:  # or it stays for ever
            with suppress(OSError):
                os.kill(sign.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        for process in self._started:
            process.kill()
        # Nobody waits for them: meanwhile PyTorch would raise an error in the main thread.
        for worker in [child for child in multiprocessing.active_children() if child.daemon]:
            worker.kill()
        if run is not None and Watchdog.write_page is not None:
            writer = threading.Thread(target=Watchdog.write_page, args=(run,), daemon=True)
            writer.start()
            writer.join(_PAGE_SECONDS)  # a disk that is gone must not keep the process
        os._exit(LOST)


def _take_over(trainer: L.Trainer) -> list[subprocess.Popen[Any]]:
    """Take the processes that Lightning has started out of its sight, and give them.

    It would look every five seconds if one has ended with another status than 0, and then kill this
    process without a word. But so do those of a run that was stopped, while this one still writes
    the run's page.
    """
    launcher: Any = trainer.strategy.launcher
    started = list(getattr(launcher, "procs", []))
    if started:
        launcher.procs.clear()
        launcher.procs = started  # which it kills after a second Ctrl-C
    return started


def how_lost(error: BaseException | None) -> str:
    """Give what the watchdog has said about an error, or about one that this one came upon.

    PyTorch raises that of a dead worker again and again, also while the first one is dealt with.
    """
    said = ""
    while error is not None and not said:
        said, error = getattr(error, "lost", "") or _of_worker(error), error.__context__
    return said


def _of_worker(error: BaseException) -> str:
    """Give PyTorch's sentence if an error is that of a dead worker."""
    said = str(error).partition("\n")[0].strip().rstrip(".")
    return said if said.startswith("DataLoader worker") else ""


def _state(pid: int) -> str:
    """Give a process's state as Linux does, such as T for stopped; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _children() -> set[int]:
    """List this process's own; asking multiprocessing would hide dead workers from the loader."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended since
            found |= {int(pid) for pid in path.read_text().split()}
    return found
