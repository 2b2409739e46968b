"""Time of the causal convolution, both directions at once, against other implementations.

``python -m benchmarks.conv [--short]``. With a GPU, the GPU is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import common, report
from benchmarks.scan_cases import COPY, FORWARD, TRAINING, copy_of
from vmm.ops.conv.causal_conv import Taps, bidirectional_conv1d
from vmm.ops.tuning.cpu_memory import keep_freed_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"Ti": 384, "M": 1152}  # d_inner of VideoMamba-Ti and -M
TAPS = 4

TEXT = f"""Milliseconds of both directions with bias and SiLU, {TAPS} taps, the fastest of several
runs, all variants in turns. Inputs are channels-last, as the block has them. `{COPY}` is the floor
that memory sets: input and outputs, and in training the gradients, moved once. causal-conv1d knows
one direction: the other one is flipped."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        widths: Keys of ``WIDTHS``.
        lengths: Tokens.
        batch: Samples.
        dtypes: Of the inputs.
        rounds: See ``common.Race``.
        limit_s: See ``common.Race``.
    """

    widths: tuple[str, ...]
    lengths: tuple[int, ...]
    batch: int
    dtypes: tuple[str, ...]
    rounds: int
    limit_s: float


SHORT = Sizes(("Ti", "M"), (197, 1569), 1, ("float32", "bfloat16"), 4, 1.2)
LONG = Sizes(("Ti", "M"), (197, 1569, 6273, 12545), 4, ("float32", "bfloat16"), 9, 3.0)


def backends() -> dict[str, str]:
    """Return name to backend of what runs here, ours first."""
    if common.device().type == "cpu":
        return {"vmm cpu": "cpu", "PyTorch": "torch"}
    found = {"vmm triton": "triton", "PyTorch": "torch"}
    if "causal_conv1d" in common.versions(("causal_conv1d",)):
        found["causal-conv1d"] = "causal_conv1d"
    return found


def call_of(backend: str, inputs: list[Tensor], backward: bool) -> Callable[[], list[Tensor]]:
    """Return a call that gives both outputs and, if asked, the gradient of every input."""

    def call() -> list[Tensor]:
        leaves = [x.detach().requires_grad_(backward) for x in inputs]
        x, *parameters = leaves
        ways = Taps(*parameters[:2]), Taps(*parameters[2:])
        outs = [y for y in bidirectional_conv1d(x, *ways, backend=backend) if y is not None]
        gradients = torch.autograd.grad(outs, leaves, outs) if backward else ()
        return [*(y.detach() for y in outs), *gradients]

    return call


def make_inputs(width: int, length: int, batch: int, dtype: str) -> list[Tensor]:
    """Return x (B, E, L), channels last, then weight and bias of both directions."""
    torch.manual_seed(0)
    x = torch.randn(batch, length, width).to(common.device(), getattr(torch, dtype))
    shapes = ((width, TAPS), (width,)) * 2
    return [x.transpose(1, 2), *(torch.randn(shape, device=x.device) for shape in shapes)]


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Time all variants; the lengths of a case grow."""
    rows = []
    cases = list(itertools.product(sizes.widths, (FORWARD, TRAINING), sizes.dtypes))
    for width, what, dtype in report.progress(cases, "convolution"):
        race = common.Race(sizes.rounds, sizes.limit_s)
        for length in sizes.lengths:
            inputs = make_inputs(WIDTHS[width], length, sizes.batch, dtype)
            of = partial(call_of, inputs=inputs, backward=what == TRAINING)
            calls = {name: of(backend) for name, backend in backends().items()}
            moved = 3 if what == FORWARD else 7  # x, outputs; x, their gradients, that of x
            calls[COPY] = copy_of(moved * common.num_bytes(inputs[:1]))
            for name, timing in race.run(length, calls).items():
                row = {"width": width, "what": what, "dtype": dtype, "batch": sizes.batch}
                row |= {"length": length, "variant": name, "ms": 1e3 * timing.fastest}
                rows.append(row | {"median_ms": 1e3 * timing.median, "runs": timing.runs})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return milliseconds with one column for each variant."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    place = ("what", "width", "batch", "dtype", "length")
    times: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in rows:
        times.setdefault(tuple(row[key] for key in place), {})[row["variant"]] = row["ms"]
    return report.table(
        [*place, *names],
        [[*map(str, at), *(report.number(x.get(n)) for n in names)] for at, x in times.items()],
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw time against length; one panel for each pass, the widest model, the first type."""
    figure, axes = report.new_figure(2)
    width, dtype = rows[-1]["width"], rows[0]["dtype"]
    names = list(dict.fromkeys(row["variant"] for row in rows))
    for axis, what in zip(axes[0], (FORWARD, TRAINING), strict=True):
        kind = width, what, dtype
        same = [row for row in rows if (row["width"], row["what"], row["dtype"]) == kind]
        lines = {n: [(r["length"], r["ms"]) for r in same if r["variant"] == n] for n in names}
        title = f"{what}, {width}, {dtype}"
        report.draw_lines(axis, lines, title=title, xlabel="tokens", ylabel="ms")
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.conv", __doc__ or "", "two lengths of batch 1")
    sizes = SHORT if options.short else LONG
    keep_freed_memory()
    rows = measure(sizes)
    title = f"Causal convolution on {common.place()}"
    tables = {"Milliseconds": table(rows)}
    result = report.Report("conv", title, TEXT, sizes._asdict(), rows, tables, [], [])
    print(result.write(options, draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
