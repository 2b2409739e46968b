"""Processes that make data sets."""

import multiprocessing

import pytest

from vmm.shards.processes import process_pool


@pytest.mark.parametrize(("jobs", "most"), [(0, 1), (2, 2), (9, 3)])
def test_no_more_processes_than_jobs_are_started(jobs, most):
    before = set(multiprocessing.active_children())
    with process_pool(3, jobs) as pool:
        assert [pool.submit(abs, -number).result() for number in range(jobs)] == list(range(jobs))
        assert 1 <= len(set(multiprocessing.active_children()) - before) <= most
