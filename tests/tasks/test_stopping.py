import multiprocessing
import os
import signal
import socket

import pytest
import torch.distributed as dist

from vmm.command_line import run_to_status
from vmm.tasks.stopping import Stopped, StopSignals


@pytest.fixture
def signals():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signals = StopSignals()
    signals.begin()
    yield signals
    signals.end()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_nothing_else(signals, number):
    assert signals.asked() == (0, False)
    os.kill(os.getpid(), number)
    assert signals.asked() == (number, False)


def test_a_second_ctrl_c_stops_at_once_a_second_sigterm_does_not(signals):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_that_means_something_else_is_left_alone():
    """As in a process that a script starts in the background, which ignores it."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = StopSignals()
    try:
        signals.begin()
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.asked() == (0, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked() == (signal.SIGTERM, False)
    finally:
        signals.end()
        signal.signal(signal.SIGINT, old)


def agree(rank, port, results):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(address | {"RANK": str(rank)})
    dist.init_process_group("gloo")
    signals = StopSignals()
    signals.begin()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    results.put(signals.asked(due=rank == 1))
    signals.end()
    dist.destroy_process_group()


def test_processes_agree_on_the_signal_and_on_the_time_to_save():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=agree, args=(rank, port, results)) for rank in (0, 1)]
    for process in both:
        process.start()
    assert [results.get(timeout=100) for _ in both] == [(signal.SIGTERM, True)] * 2
    for process in both:
        process.join(30)
        assert process.exitcode == 0


@pytest.mark.parametrize(
    ("number", "status", "by"),
    [
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGTERM, 75, "SIGTERM"),
        (signal.SIGUSR1, 75, "SIGUSR1"),
    ],
)
def test_the_status_says_which_end_it_was(capsys, number, status, by):
    def stop():
        raise Stopped(number, "3 steps are done")

    assert run_to_status("vmm", stop) == status
    assert capsys.readouterr().err == f"\nvmm: stopped by {by}; 3 steps are done\n"


def test_that_torchrun_is_gone_stops_a_run(monkeypatch, caplog):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    signals = StopSignals()
    signals.begin()
    try:
        assert signals.asked() == (0, False)
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert signals.asked() == (signal.SIGTERM, False) and "torchrun is gone" in caplog.text
        assert signals.asked() == (signal.SIGTERM, False)
    finally:
        signals.end()
