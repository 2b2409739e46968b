"""Requests that come at the same time are computed at the same time, by one thread.

The first request waits a few milliseconds for others; under load nobody waits, since the next batch
is there when one is done. A request that nobody waits for any more is left out, and one that fails
does not take the others of its batch along.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)


class _Job(NamedTuple):
    kind: str
    item: Any
    future: Future[Any]


class Batcher:
    """A thread that computes batches.

    Args:
        compute: Kind -> what computes a list of items of it, one result each, in their order.
        max_batch: Items that are computed at once.
        max_wait: Seconds that the first item of a batch waits for others.
    """

    def __init__(
        self,
        compute: dict[str, Callable[[list[Any]], Sequence[Any]]],
        max_batch: int,
        max_wait: float,
    ) -> None:
        self._compute = compute
        self._max_batch, self._max_wait = max_batch, max_wait
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.batches, self.items = 0, 0
        """How many were computed."""
        self._thread = threading.Thread(target=self._work, name="vmm-model", daemon=True)
        self._thread.start()

    def submit(self, kind: str, item: Any) -> Future[Any]:
        """Ask for an item of a kind; the future gives its result, or raises what computing it did.

        A ``ValueError`` is a mistake in the item.
        """
        future: Future[Any] = Future()
        self._jobs.put(_Job(kind, item, future))
        return future

    def close(self) -> None:
        """Finish what was asked for, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        ended = False
        while not ended:
            jobs, ended = self._collect()
            by_kind: dict[str, list[_Job]] = {}
            for job in jobs:
                if job.future.set_running_or_notify_cancel():
                    by_kind.setdefault(job.kind, []).append(job)
            for kind, batch in by_kind.items():
                self._run(kind, batch)

    def _collect(self) -> tuple[list[_Job], bool]:
        """Wait for a batch; also tell whether it is the last."""
        jobs: list[_Job] = []
        deadline = None
        while len(jobs) < self._max_batch:
            try:
                left = None if deadline is None else deadline - time.monotonic()
                job = self._jobs.get(timeout=None if left is None else max(left, 0))
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
            deadline = deadline or time.monotonic() + self._max_wait
        return jobs, False

    def _run(self, kind: str, batch: list[_Job]) -> None:
        try:
            results = self._compute[kind]([job.item for job in batch])
        except Exception as error:  # noqa: BLE001  # whoever asked gets it
            if len(batch) > 1:  # which one is it?
                for job in batch:
                    self._run(kind, [job])
                return
            batch[0].future.set_exception(error)
            return
        self.batches += 1
        self.items += len(batch)
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)
