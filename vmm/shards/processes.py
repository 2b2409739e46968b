"""Processes that make and inspect shards."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def process_pool(
    workers: int, jobs: int, prepare: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Give processes that a Ctrl-C ends at once and without a word of their own.

    Args:
        workers: How many at most.
        jobs: How many there will be to do; more processes are not started.
        prepare: Called with ``arguments`` in each before it works.
        arguments: For ``prepare``.
    """
    context = multiprocessing.get_context("spawn")  # not forked: the caller may run threads
    others = set(multiprocessing.active_children())
    start = partial(_start_worker, prepare, *arguments)
    workers = max(1, min(workers, jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool:
        results = pool._result_queue  # which a pool that was shut down has forgotten
        try:
            # The terminal sends Ctrl-C to all processes; those started here inherit that it waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                for _ in range(workers):
                    pool.submit(int)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            yield pool
        except KeyboardInterrupt:
            for child in set(multiprocessing.active_children()) - others:
                child.kill()
            # A child may die in the middle of a result. The pool reads on for the rest of it as
            # long as anybody could write that, and this process is the last that could.
            results._writer.close()  # type: ignore[attr-defined]
            raise


def _start_worker(prepare: Callable[..., None] | None, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare(*arguments)
