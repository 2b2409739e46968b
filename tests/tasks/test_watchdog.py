import os
import platform
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from vmm.tasks.run_record import RunRecord
from vmm.tasks.watchdog import Peer, Sign, Watchdog, how_lost, who_holds_up


def sign(things=5, lasts=0.0, doing="step 3"):
    return Sign("node", 77, things, doing, lasts, 1)


def found(own, peer, heard_ago):
    return who_holds_up(own, {4: Peer(peer, 100.0 - heard_ago)}, 100.0, silence=10, patience=50)


@pytest.mark.parametrize(
    ("own", "peer", "heard_ago", "said"),
    [
        (sign(), sign(), 9, None),
        (sign(), sign(), 11, "has given no sign of life for 11 s (pid 77 on node); it was at step"),
        (sign(lasts=60), sign(things=4, lasts=70), 1, "does not come on (pid 77 on node); it was"),
        (sign(lasts=40), sign(things=4, lasts=70), 1, None),  # not yet
        (sign(lasts=60), sign(), 1, None),  # both wait for a third, or compute
        (sign(lasts=60), sign(things=6), 1, None),  # it waits for us
        (sign(lasts=60), sign(things=4, doing="its end, ValueError: x"), 99, None),
    ],
)
def test_who_holds_up(own, peer, heard_ago, said):
    result = found(own, peer, heard_ago)
    assert (result is None) == (said is None)
    if said is not None:
        assert result[0] == 4 and result[1].startswith(said)


@pytest.mark.parametrize(("silence", "patience"), [(0, 900), (-1, 900), (50, 20)])
def test_settings_that_mean_nothing_are_refused(silence, patience):
    with pytest.raises(ValueError, match="are seconds; set both"):
        Watchdog(silence, patience)


@pytest.fixture
def watch(monkeypatch):
    """Let a watchdog look around once; give what it would have ended the run with."""
    said = []

    def end(self, words, peer):
        said.append(words)
        self._over.set()

    monkeypatch.setattr(Watchdog, "_end", end)

    def watch(dog):
        dog._over = threading.Event()
        dog._interval = 0.01
        timer = threading.Timer(0.15, dog._over.set)
        timer.start()
        dog._watch(dog._over)
        return said

    return watch


def test_a_batch_that_does_not_come_ends_the_run(watch):
    dog = Watchdog(silence=0.05, patience=0.05)
    dog._trainer = SimpleNamespace(datamodule=SimpleNamespace(reading=lambda: "worker 0: a/b.tar"))
    dog.on_train_batch_end(SimpleNamespace(global_step=7))
    (said,) = watch(dog)
    assert said.startswith("the batch for step 7 does not come for 0 s; the workers were reading")
    assert said.endswith("worker 0: a/b.tar")


def test_a_long_step_does_not(watch):
    dog = Watchdog(silence=0.05, patience=0.05)
    dog.on_train_batch_start(SimpleNamespace(global_step=7))
    assert watch(dog) == []


def test_after_a_suspension_everybody_gets_time_again(watch, monkeypatch):
    dog = Watchdog(silence=0.05, patience=0.05)
    long_ago = time.monotonic() - 1000
    dog._peers = {0: Peer(sign(), long_ago)}
    dog._looked = dog._answered = long_ago
    times = iter([long_ago + 1000 + i * 0.01 for i in range(3)])
    monkeypatch.setattr(time, "monotonic", lambda: next(times, long_ago + 1000.03))
    assert watch(dog) == []


def test_silence_of_the_store_is_that_of_process_0(watch, monkeypatch):
    monkeypatch.setattr("vmm.tasks.watchdog.world_size", lambda: 3)
    dog = Watchdog(silence=0.05, patience=9)
    now = time.monotonic()
    dog._peers = {number: Peer(sign(), now - 5) for number in (1, 0)}
    dog._answered = now - 5
    dog._looked = now
    (said,) = watch(dog)
    assert said.startswith("process 0 of 3 has given no sign of life for 5 s (pid 77 on node)")


@pytest.mark.parametrize("status", [3, 0])
def test_a_started_process_that_ends_badly_is_named(watch, status):
    dog = Watchdog()
    dog._started = [subprocess.Popen([sys.executable, "-c", f"raise SystemExit({status})"])]
    dog._started[0].wait()
    dog._peers = {1: Peer(sign(doing="its end, ValueError: no"), time.monotonic())}
    pid = dog._started[0].pid
    named = f"process 1 of 1 has ended with status 3 (pid {pid} on {platform.node()})"
    assert watch(dog) == [f"{named}; it was at its end, ValueError: no"] * bool(status)


def test_lightning_no_longer_looks_at_the_processes_that_it_started():
    looked_at = [subprocess.Popen([sys.executable, "-c", ""]) for _ in range(2)]
    processes = list(looked_at)
    launcher = SimpleNamespace(procs=looked_at)
    dog = Watchdog()
    dog.setup(SimpleNamespace(strategy=SimpleNamespace(launcher=launcher)), None, "fit")
    dog.teardown()
    assert not looked_at and dog._started == launcher.procs == processes
    for process in processes:
        process.wait()


def test_a_worker_that_is_killed_is_a_lost_process_with_what_it_read():
    """PyTorch raises the error in a signal handler, in the middle of whatever is done."""
    dog = Watchdog()
    dog._trainer = SimpleNamespace(
        datamodule=SimpleNamespace(reading=lambda: "worker 0: 'a/1' for 2 s")
    )
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore")
    pipe, other = ConnectionResetError("reset by peer"), RuntimeError("something else")
    gone = subprocess.Popen(["sleep", "9"])
    dog.on_exception(dog._trainer, None, pipe)  # nobody is gone yet
    assert not how_lost(pipe)
    gone.kill()
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    for exception in (error, other, pipe):
        dog.on_exception(dog._trainer, None, exception)
    gone.wait()
    reading = "; the workers were reading: worker 0: 'a/1' for 2 s. Go on with --resume"
    assert how_lost(error) == "DataLoader worker (pid 7) is killed by signal: Killed" + reading
    assert how_lost(pipe) == f"the worker with pid {gone.pid} is gone" + reading
    assert how_lost(other) == ""
    other.__context__ = error  # which came again while the run was taken down
    assert how_lost(other) == how_lost(error)
    again = RuntimeError(str(error))
    assert how_lost(again) == "DataLoader worker (pid 7) is killed by signal: Killed"


@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_it_ends_has_its_page(monkeypatch, tmp_path, first):
    written, ended = [], []
    record = RunRecord()
    record._folder, record._running = tmp_path, True
    dog = Watchdog()
    dog._trainer = SimpleNamespace(callbacks=[record], is_global_zero=first, global_step=3)
    monkeypatch.setattr(Watchdog, "write_page", written.append)
    monkeypatch.setattr(os, "_exit", ended.append)
    (tmp_path / "config.yaml").touch()
    dog._end("the worker with pid 7 is stopped", None)
    assert ended == [69] and written == [tmp_path] * first
    assert (tmp_path / "run.json").is_file() == first


def test_a_page_that_cannot_be_written_does_not_keep_the_process(monkeypatch, tmp_path):
    ended, over = [], threading.Event()
    record = RunRecord()
    record._folder, record._running = tmp_path, True
    dog = Watchdog()
    dog._trainer = SimpleNamespace(callbacks=[record], is_global_zero=True, global_step=3)
    monkeypatch.setattr(Watchdog, "write_page", lambda run: over.wait(60))
    monkeypatch.setattr("vmm.tasks.watchdog._PAGE_SECONDS", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    dog._end("the worker with pid 7 is stopped", None)
    over.set()
    assert ended == [69]
