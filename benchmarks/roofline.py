"""The measured time of every Triton kernel beside what its bytes and operations allow.

``python -m benchmarks.roofline [--short]``, on a GPU. The kernels and the arithmetic are those of
``benchmarks.kernels``, which needs none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import report
from benchmarks.kernel_cases import KERNELS, SHAPES, Launches, Shape, operators
from benchmarks.kernels import GPUS, Gpu, floors_of
from benchmarks.scan_cases import copy_of
from vmm.command_line import MISTAKE
from vmm.text_output import complain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COPY = "copy"
_COPIED = 2**30
_ROUNDS, _CLEARED, _CLEARINGS = 20, 2**28, 8
_SAME = 0.7
"""Of the stated bandwidth, what a copy reaches at least on the card that is meant."""
PEAKS = (*GPUS.values(), GPUS["sm_90"]._replace(name="H200 SXM", bandwidth=4.8e12))

TEXT = f"""Microseconds of all kernels of an operator, between two events on the GPU, the fastest
of {_ROUNDS} runs; what they read is not in its caches, and their launches wait in the queue, so
that no time of the CPU is in it. The floor is the longest of three times at the stated peak rates:
the least bytes over the bandwidth, the least multiply-adds, and the least powers of two, logarithms
and quotients. `{COPY}` reads and writes {_COPIED // 2**20} MiB together: what the memory gives.
Moved bytes are those that the kernels move by their design, the least those of any kernel."""


def peak_of(name: str, units: int | None = None) -> Gpu | None:
    """Return the stated peak rates of a card; None of one that is not in the table.

    Args:
        name: As the driver says it.
        units: Multiprocessors that it has, where it may have fewer than the largest of the name.
    """
    for gpu in PEAKS:
        if gpu.name.split()[0] in name:
            return gpu if units is None else gpu._replace(schedulers=4 * units)
    return None


def gpu_seconds(call: Launches) -> float:
    """Return the seconds of one call on the GPU, the fastest of several."""
    call()  # compiles
    cache = torch.empty(_CLEARED, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(_ROUNDS):
        for _ in range(_CLEARINGS):  # the CPU gets ahead meanwhile
            cache.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return float(min(times))


def row_of(name: str, dtype: str, shape: Shape, seconds: float, gpu: Gpu | None) -> dict[str, Any]:
    """Return a measured time of an operator beside its bytes, operations and floor."""
    names = operators()[name]
    size = getattr(torch, dtype).itemsize
    elements = shape.batch * shape.channels * shape.length
    moved = elements * sum(KERNELS[x].moved[0] * size + KERNELS[x].moved[1] * 4 for x in names)
    operations = 2 * elements * sum(KERNELS[x].operations for x in names)
    row: dict[str, Any] = {"operator": name, "type": dtype, "shape": shape.name}
    row |= {"us": 1e6 * seconds, "MB moved": moved / 1e6, "GB/s": moved / seconds / 1e9}
    row |= {"GFLOP": operations / 1e9, "TFLOP/s": operations / seconds / 1e12}
    if gpu is None:
        return row
    floors = floors_of(names, shape, size, gpu)
    bound = max(floors, key=lambda x: floors[x])
    row |= {"bandwidth, %": 100 * moved / seconds / gpu.bandwidth}
    row |= {"floor_us": 1e6 * floors[bound], "floor of": bound}
    return row | {"to floor": seconds / floors[bound]}


def measure(
    dtypes: tuple[str, ...],
    shapes: tuple[Shape, ...],
    gpu: Gpu | None,
    device: str = "cuda",
    seconds_of: Callable[[Launches], float] = gpu_seconds,
) -> list[dict[str, Any]]:
    """Time every operator at every shape.

    Args:
        dtypes: Of all that has a length.
        shapes: Of the inputs.
        gpu: Stated peak rates, if there are any.
        device: Where the inputs are.
        seconds_of: The clock.
    """
    cases = [(name, dtype, shape) for name in operators() for dtype in dtypes for shape in shapes]
    rows = []
    for name, dtype, shape in report.progress(cases, "roofline"):
        prepare = KERNELS[operators()[name][0]].prepare
        seconds = seconds_of(prepare(getattr(torch, dtype), shape, device))
        rows.append(row_of(name, dtype, shape, seconds, gpu))
    return rows


def notes_on(name: str, gpu: Gpu | None, copied: float) -> list[str]:
    """Say what the stated rates are worth here.

    Args:
        name: Of the card.
        gpu: Its stated rates.
        copied: Bytes per second of a copy.
    """
    if gpu is None:
        return [f"no peak rates of {name} are stated in benchmarks.kernels: there is no floor"]
    share = copied / gpu.bandwidth
    found = [f"the peak rates are those of {gpu.name}, {gpu.bandwidth / 1e12:g} TB/s"]
    found.append(f"a copy reaches {report.number(100 * share)} % of that bandwidth")
    if share < _SAME:
        found.append(f"is {name} another card of that name? Then its floors are others")
    return found


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw measured time and floor of every operator, one panel for each shape."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    figure, axes = report.new_figure(len(shapes))
    for axis, shape in zip(axes[0], shapes, strict=True):
        same = [row for row in rows if row["shape"] == shape]
        names = [f"{row['operator']}, {row['type']}" for row in same]
        axis.plot([row["us"] for row in same], names, "o", label="measured")
        if "floor_us" in same[0]:
            axis.plot([row["floor_us"] for row in same], names, "|", label="floor")
        axis.set(title=shape, xscale="log", xlabel="microseconds")
        axis.legend(frameon=False)
    return figure


def main() -> int:
    """Measure, and write the three files; 2 without a GPU."""
    options = report.options("benchmarks.roofline", __doc__ or "", "bfloat16 only")
    if not torch.cuda.is_available():
        complain("benchmarks.roofline: error: PyTorch finds no GPU here; see benchmarks.kernels")
        return MISTAKE
    name = torch.cuda.get_device_name()
    gpu = peak_of(name, torch.cuda.get_device_properties(0).multi_processor_count)
    dtypes = ("bfloat16",) if options.short else ("bfloat16", "float32")
    seconds = gpu_seconds(copy_of(_COPIED))
    rows = measure(dtypes, SHAPES, gpu)
    cells = [
        [report.number(x) if isinstance(x, float) else str(x) for x in row.values()] for row in rows
    ]
    tables = {"Measured time and floor": report.table(list(rows[0]), cells)}
    copied = {"operator": COPY, "us": 1e6 * seconds, "GB/s": _COPIED / seconds / 1e9}
    notes = notes_on(name, gpu, _COPIED / seconds)
    settings = {"shapes": [x._asdict() for x in SHAPES], "gpu": gpu and gpu._asdict()}
    title = "The Triton kernels beside what the GPU could do"
    result = report.Report("roofline", title, TEXT, settings, [*rows, copied], tables, [], notes)
    print(result.write(options, draw(rows)).read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
