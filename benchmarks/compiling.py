"""What ``torch.compile`` of its layers gains a training step of the video encoder.

``python -m benchmarks.compiling [--short]``: forward and backward of encoders as they are written
and with compiled layers (``--compile.backend inductor`` of ``vmm fit``), in turns. With a GPU, the
GPU is measured under bfloat16 autocast.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import common, report
from vmm.models.videomamba import VideoMamba
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.tasks.compiling import compile_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN, COMPILED = "as written", "compiled layers"

TEXT = """Seconds of forward and backward of a batch, the median of several runs, both in turns,
with vmm's own settings for both (float32 products by oneDNN on a CPU). Scan and convolution are
vmm's own kernels in both: the compiler takes them as they are, and fuses what is between them. The
first step of a shape also compiles; its time is that of the clock, and grows on a busy machine."""


class Case(NamedTuple):
    """An encoder and its batch."""

    name: str
    width: int
    depth: int
    clips: int
    frames: int
    image_size: int


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        cases: Encoders, each with a batch.
        rounds: See ``common.Race``.
        backend: Of ``torch.compile``.
    """

    cases: tuple[Case, ...]
    rounds: int
    backend: str = "inductor"


DEMO = Case("demo", 128, 4, 8, 4, 64)
SHORT = Sizes((DEMO,), 5)
LONG = Sizes((DEMO, Case("VideoMamba-Ti, 4 of 24 layers", 192, 4, 2, 8, 224)), 7)
ON_GPU = (Case("VideoMamba-M, 8 of 32 layers", 576, 8, 16, 8, 224),)


def step_of(model: VideoMamba, video: Tensor) -> Callable[[], object]:
    """Return a call that computes all gradients."""

    def call() -> None:
        model.zero_grad()
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
            features = model(video)
        (
            features.pooled.float().square().mean() + features.tokens.float().square().mean()
        ).backward()

    return call


def on_the_clock(call: Callable[[], object]) -> float:
    """Return the seconds of one call, with those of other programs that it waits for."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(case: Case, sizes: Sizes) -> list[dict[str, Any]]:
    """Time both variants of a case, and what their first calls take."""
    torch.manual_seed(0)
    shape = case.clips, case.frames, 3, case.image_size, case.image_size
    video = torch.randn(shape, device=common.device())
    encoder = VideoMamba(case.width, case.depth, case.frames, case.image_size, num_taps=0)
    models = {WRITTEN: encoder.to(video.device).train()}
    models[COMPILED] = copy.deepcopy(encoder)
    compile_layers(models[COMPILED], sizes.backend)
    calls = {name: step_of(model, video) for name, model in models.items()}
    torch._inductor.config.force_disable_caches = True
    first = {name: on_the_clock(call) for name, call in calls.items()}
    timings = common.Race(sizes.rounds, limit_s=60.0).run(1, calls)
    return [
        {"case": case.name, "variant": name, "s": timing.median, "fastest_s": timing.fastest}
        | {"first_s": first[name], "runs": timing.runs}
        for name, timing in timings.items()
    ]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the seconds of both variants, as shares of those as written."""
    figure, axes = report.new_figure(1)
    names = list(dict.fromkeys(row["case"] for row in rows))
    axes[0][0].barh(names, [gain(rows, name) for name in names])
    axes[0][0].axvline(1, color="black", lw=0.8)
    axes[0][0].set_xlabel("time as written / time with compiled layers")
    return figure


def gain(rows: list[dict[str, Any]], case: str) -> float:
    """Return how many times faster compiled layers are."""
    seconds = {row["variant"]: row["s"] for row in rows if row["case"] == case}
    return float(seconds[WRITTEN] / seconds[COMPILED])


def main() -> None:
    """Measure, and write the report."""
    options = report.options("benchmarks.compiling", __doc__ or "", "all encoders but the demo's")
    sizes = SHORT if options.short else LONG
    tune_cpu()
    cases = sizes.cases + (ON_GPU if torch.cuda.is_available() else ())
    rows = [row for case in report.progress(cases, "compiling") for row in measure(case, sizes)]
    lines = [
        [row["case"], row["variant"], *(report.number(row[key]) for key in ("s", "first_s"))]
        for row in rows
    ]
    notes = [f"{case.name}: {gain(rows, case.name):.2f} times as fast" for case in cases]
    found = report.Report(
        name="compiling",
        title="What compiled layers gain",
        text=TEXT,
        settings={"backend": sizes.backend, "cases": [case._asdict() for case in cases]},
        rows=rows,
        tables={"Seconds": report.table(["encoder", "layers", "a step", "the first one"], lines)},
        bars=[],
        notes=notes,
    )
    print(found.write(options, draw(rows)))


if __name__ == "__main__":
    main()
