"""What it costs a training step that ``vmm fit`` takes care of the run.

``python -m benchmarks.care [--short]``: one run of the demo recipe in which steps with all of vmm's
callbacks (number guard, draws, signals, watchdog, curves of speed, run record) and steps with
Lightning's own alone take turns.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import lightning as L

from benchmarks import report
from vmm.trainer_cli import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITH, WITHOUT = "vmm's callbacks, too", "Lightning's alone"

TEXT = """Stage 2 of the demo on one process, shards decoded by the training process, the same run
all along. After every few steps vmm's callbacks are taken out or put back, beside Lightning's own
(checkpoint, learning rates); the first step after a change is not counted. A step is what passes
from the end of one batch to the end of the next: on the clock, and on the processor alone, with all
threads of the process, so that other work of the machine is not in it. The ratio is that of the
medians; its range is that of five parts of the run."""


class Turns(L.Callback):
    """Take vmm's callbacks out for some steps, and put them back for as many.

    Args:
        length: Steps of a turn.
    """

    def __init__(self, length: int = 6) -> None:
        self.length = length
        self.times: dict[str, list[tuple[float, float]]] = {WITH: [], WITHOUT: []}
        """Seconds on the clock and on the processor."""
        self._all: list[L.Callback] = []
        self._before: tuple[float, float] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the callbacks."""
        self._all = list(trainer.callbacks)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        """Note the time of a step; change at the end of a turn."""
        clock, busy = time.perf_counter(), time.process_time()
        turn, step = divmod(trainer.global_step - 1, self.length)
        if step and self._before is not None and turn > 1:
            step_took = clock - self._before[0], busy - self._before[1]
            self.times[WITHOUT if turn % 2 else WITH].append(step_took)
        if step == self.length - 1:
            others = [c for c in self._all if not type(c).__module__.startswith("vmm.")]
            chosen = self._all if turn % 2 else others
            trainer.callbacks = list(chosen)  # type: ignore[attr-defined]
        self._before = time.perf_counter(), time.process_time()


def measure(steps: int) -> list[dict[str, Any]]:
    """Train so many steps; give the time of every one that counts."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            [
                *("fit", "-c", "recipes/stage2_vtt.yaml", "--trainer.accelerator=cpu"),
                *("--trainer.limit_val_batches=0", f"--data.init_args.steps_per_epoch={steps}"),
                *("--trainer.max_epochs=1", "--data.init_args.num_workers=0"),
                *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
                *("--data.init_args.batch_size=8", "--data.init_args.image_batch_size=8"),
                f"--trainer.logger.init_args.save_dir={folder}",
                "--trainer.callbacks+=benchmarks.care.Turns",
            ]
        )
    assert done is not None
    (turns,) = (c for c in done.trainer.callbacks if type(c).__name__ == Turns.__name__)
    return [
        {"variant": name, "number": number, "s": clock, "cpu_s": busy}
        for name, times in turns.times.items()
        for number, (clock, busy) in enumerate(times)
    ]


def ratio(rows: list[dict[str, Any]], kind: str, part: int = 0, parts: int = 1) -> float:
    """Return how much longer the median step with the callbacks is, in a part of the run.

    Args:
        rows: Of ``measure``.
        kind: Of the seconds: ``s`` or ``cpu_s``.
        part: Number of the part.
        parts: Parts of the run.
    """
    with_them, without = (_median(rows, name, kind, part, parts) for name in (WITH, WITHOUT))
    return with_them / without


def _median(
    rows: list[dict[str, Any]], name: str, kind: str, part: int = 0, parts: int = 1
) -> float:
    times = [row[kind] for row in rows if row["variant"] == name]
    size = len(times) // parts
    return statistics.median(times[part * size : (part + 1) * size])


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw how the times of both kinds of steps are distributed."""
    figure, axes = report.new_figure(1)
    axis = axes[0][0]
    for name in (WITHOUT, WITH):
        times = sorted(1e3 * row["cpu_s"] for row in rows if row["variant"] == name)
        axis.plot(times, [(i + 1) / len(times) for i in range(len(times))], label=name)
    axis.set_xlabel("ms of the processor per step")
    axis.set_ylabel("share of the steps that take less")
    axis.legend()
    return figure


def main() -> None:
    """Measure, and write the report."""
    options = report.options("benchmarks.care", __doc__ or "", "an eighth of the steps")
    rows = measure(120 if options.short else 960)
    share = ratio(rows, "cpu_s")
    kinds = {"processor": "cpu_s", "clock": "s"}
    lines = [
        [name, *(f"{1e3 * _median(rows, name, kind):.2f}" for kind in kinds.values())]
        for name in (WITH, WITHOUT)
    ]
    notes = [f"{os.getloadavg()[0]:.1f} processes wanted a processor, on the average"]
    for name, kind in kinds.items():
        spread = [ratio(rows, kind, part, 5) for part in range(5)]
        whole = ratio(rows, kind)
        parts = f"{min(spread):.3f} to {max(spread):.3f}"
        notes.append(f"by the {name}: {whole:.3f}, medians of five parts {parts}")
    found = report.Report(
        name="care",
        title="What the care of a run costs a step",
        text=TEXT,
        settings={"recipe": "stage2_vtt", "batch": 8, "workers": 0},
        rows=rows,
        tables={"Median step": report.table(["callbacks", *(f"ms, {x}" for x in kinds)], lines)},
        bars=[report.Bar("step with them, as a share of one without", 1.02, share, True)],
        notes=notes,
    )
    print(found.write(options, draw(rows)))


if __name__ == "__main__":
    main()
