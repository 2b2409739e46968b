import io
import logging
import math
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Timer
from tqdm import tqdm

from vmm.data import shards
from vmm.tasks import progress
from vmm.tasks.messages import BesideBars, SaidOnce
from vmm.tasks.progress import Progress, in_words


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def trainer():
    return SimpleNamespace(
        global_step=0, estimated_stepping_batches=100, callbacks=[], checkpoint_callbacks=[],
        progress_bar_metrics={"train/loss": 2.5}, callback_metrics={}, num_val_batches=[3],
        sanity_checking=False, state=SimpleNamespace(fn="fit"), is_global_zero=True,
    )  # fmt: skip


def train(bar, trainer, clock, steps, seconds):
    for _ in range(steps):
        clock.now += seconds
        trainer.global_step += 1
        bar.on_train_batch_end(trainer, None, None, None, 0)


def test_the_end_is_foretold_once_when_the_speed_is_known(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    bar = Progress()
    bar.on_train_start(trainer, None)
    train(bar, trainer, clock, 1, 40)  # the first step warms up
    train(bar, trainer, clock, 4, 2)
    assert not caplog.messages
    train(bar, trainer, clock, 1, 2)
    (said,) = caplog.messages
    assert said.startswith("end:        expected at ") and said.endswith(", in 3 min")  # 94 x 2 s
    train(bar, trainer, clock, 10, 1)
    assert len(caplog.messages) == 1


def test_where_there_is_no_terminal_there_is_a_line_every_minute(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    bar = Progress()
    bar.on_train_start(trainer, None)
    train(bar, trainer, clock, 51, 10)
    lines = [line for line in caplog.messages if line.startswith("step ")]
    assert len(lines) == 510 // 70  # the first step that is more than a minute after the last line
    assert lines[-1].startswith("step 49 of 100 (49%), loss 2.5, 8 min left, until ")


def test_a_run_that_goes_on_counts_from_where_it_is(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    trainer.global_step = 90
    bar = Progress()
    bar.on_train_start(trainer, None)
    train(bar, trainer, clock, 8, 30)
    assert caplog.messages[-1].startswith("step 96 of 100 (96%), loss 2.5, 2 min left")


def test_a_limit_of_time_and_a_run_without_end_are_known(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    timer = Timer(timedelta(seconds=50))
    timer.time_remaining = lambda: 42.0
    trainer.callbacks = [timer]
    bar = Progress()
    bar.on_train_start(trainer, None)
    train(bar, trainer, clock, 7, 10)
    assert caplog.messages[0].endswith("in 42 s")
    trainer.callbacks, trainer.estimated_stepping_batches = [], math.inf
    train(bar, trainer, clock, 7, 10)
    assert caplog.messages[-1] == "step 14, loss 2.5"


def test_a_validation_says_what_it_found_also_what_checkpoints_go_by(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    trainer.progress_bar_metrics |= {"val/t2v_recall_1": 62.5}
    trainer.checkpoint_callbacks = [SimpleNamespace(monitor="val/loss")]
    trainer.callback_metrics = {"val/loss": 1.25}
    bar = Progress()
    bar.on_validation_start(trainer, None)
    for _ in range(3):
        clock.now += 50
        bar.on_validation_batch_end(trainer, None, None, None, 0)
    bar.on_validation_end(trainer, None)
    assert caplog.messages == [
        "validation: batch 2 of 3",
        "validation at step 0: val/t2v_recall_1 62.5, val/loss 1.25",
    ]


def test_other_processes_say_nothing(trainer, clock, caplog):
    caplog.set_level(logging.INFO, "vmm.tasks.progress")
    trainer.is_global_zero = False
    bar = Progress()
    bar.setup(trainer, None, "fit")
    bar.on_train_start(trainer, None)
    train(bar, trainer, clock, 30, 30)
    bar.on_validation_start(trainer, None)
    bar.on_validation_end(trainer, None)
    assert not caplog.messages


def test_a_terminal_has_one_bar_over_all_steps(trainer, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    bar = Progress()
    bar.on_train_start(trainer, None)
    trainer.global_step = 100
    bar.on_train_batch_end(trainer, None, None, None, 0)
    bar.on_train_end(trainer, None)
    last = terminal.getvalue().rstrip().rpartition("\r")[2]
    assert "100/100" in last and "loss 2.5" in last and "v_num" not in last
    bar.on_exception(trainer, None, ValueError())  # closed already


def test_shards_that_are_opened_again_are_told_of_once():
    told = SaidOnce()

    def shown(name, level, message, *arguments):
        record = logging.LogRecord(name, level, "", 0, message, arguments, None)
        return told.filter(record)

    opened = shards.OPENED, "a.tar", "3 videos", "1 shard", "1 no caption"
    assert not shown("vmm.data.shards", logging.WARNING, *opened)  # the introduction says it
    damaged = "shard %s is damaged", "a"
    assert [shown("vmm.data.shards", logging.WARNING, *damaged) for _ in range(2)] == [True, False]
    assert shown("vmm.data.shards", logging.WARNING, damaged[0], "b")
    assert not shown("vmm.runs", logging.INFO, "loaded")
    assert all(shown("vmm.data.faults", logging.INFO, "x") for _ in range(2))


def test_messages_stand_above_the_bars(monkeypatch):
    terminal = Terminal()
    handler = BesideBars(terminal)
    with tqdm(total=2, file=terminal, desc="training", ncols=60) as bar:
        handler.emit(logging.LogRecord("vmm", logging.INFO, "", 0, "hello\x1b[2J", None, None))
        bar.update()
    assert "\nhello\\x1b[2J\n" in terminal.getvalue().replace("\r", "\n").replace(" " * 59, "")
    assert "training" in terminal.getvalue().partition("hello")[2]  # drawn again below


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (130, "2 min"), (7260, "2 h 01 min"), (400_000, "4.6 days")],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_end_has_its_date_where_that_is_not_today():
    assert len(progress._clock(0)) == len("12:34")
    assert progress._clock(100_000).startswith(time.strftime("%Y-"))
