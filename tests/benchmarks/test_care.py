from types import SimpleNamespace

import pytest

from benchmarks.care import WITH, WITHOUT, Turns, ratio
from vmm.tasks.number_guard import NumberGuard


def test_turns_alternate_and_leave_out_the_first_step_of_each(monkeypatch):
    turns, other = Turns(length=3), NumberGuard()
    trainer = SimpleNamespace(callbacks=[turns, other], global_step=0)
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] / 2)
    turns.on_train_start(trainer, None)
    for step in range(1, 19):
        clock[0] += 3.0 if len(trainer.callbacks) == 2 else 2.0
        trainer.global_step = step
        turns.on_train_batch_end(trainer, None)
    assert turns.times == {WITH: [(3.0, 1.5)] * 4, WITHOUT: [(2.0, 1.0)] * 4}


def test_the_ratio_is_of_medians_of_the_part():
    times = {WITH: [3, 3, 9, 4, 4, 4], WITHOUT: [2, 2, 2, 4, 1, 4]}
    rows = [{"variant": name, "s": s} for name, values in times.items() for s in values]
    assert ratio(rows, "s", 0, 2) == pytest.approx(3 / 2)
    assert ratio(rows, "s", 1, 2) == pytest.approx(1)
