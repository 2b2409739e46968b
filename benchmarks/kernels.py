"""What every Triton kernel takes of a GPU, without a GPU.

``python -m benchmarks.kernels [--short]``: each is compiled for every target; registers, spills and
shared memory are read from the machine code. Bytes and operations at stated shapes give a floor,
the code's instructions an estimate. No time is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks import report
from benchmarks.kernel_cases import KERNELS, SHAPES, SMALL, Kernel, Shape, programs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.gpu_compiler import Resources

BRANCHES = 2
"""Of a scan's code, one for each direction; a program goes through one."""


class Gpu(NamedTuple):
    """Stated peak rates: the maker's data sheet, and clock and units from its architecture guide.

    Args:
        name: Of the device.
        bandwidth: Bytes per second.
        schedulers: Each issues for one warp at a time.
        hertz: Highest clock.
        warp: Threads.
        multiply_add: Cycles in which the units of a scheduler do one for every thread of a warp.
        issue: Cycles in which a scheduler issues one instruction of a warp.
        special: Cycles in which it issues exp, log or 1 / x.
    """

    name: str
    bandwidth: float
    schedulers: int
    hertz: float
    warp: int
    multiply_add: int
    issue: int
    special: int


GPUS = {
    "sm_80": Gpu("A100 80 GB SXM", 2.04e12, 4 * 108, 1.41e9, 32, 2, 1, 8),
    "sm_90": Gpu("H100 SXM", 3.35e12, 4 * 132, 1.98e9, 32, 1, 1, 8),
    "sm_100": Gpu("B200", 8.0e12, 4 * 148, 1.97e9, 32, 1, 1, 8),
    "gfx942": Gpu("MI300X", 5.3e12, 4 * 304, 2.1e9, 64, 2, 4, 16),
}


class Sizes(NamedTuple):
    """How much is compiled.

    Args:
        builds: Targets, keys of ``GPUS``, each with the type of all that has a length.
        kernels: Keys of ``KERNELS``.
    """

    builds: tuple[tuple[str, str], ...]
    kernels: tuple[str, ...]


EVERYTHING = tuple(KERNELS)
SHORT = Sizes((("sm_90", "bfloat16"),), EVERYTHING)
LONG = Sizes((*((target, "bfloat16") for target in GPUS), ("sm_90", "float32")), EVERYTHING)

TEXT = """No GPU was there and no time was measured: this is what compilers say, and arithmetic.
Registers are those of a thread (of 255 on NVIDIA, 512 on AMD, accumulators included); spilled bytes
are those of a thread that live in memory, and how many instructions in loops touch them.
Instructions are those of one step of time in the innermost loops. The floor is the longest of three
times at the stated peak rates: the least bytes over the bandwidth, the least multiply-adds, and the
least powers of two, logarithms and quotients, of which a GPU computes an eighth to a quarter as
many. The estimate is the longer of two: the bytes that the kernel moves over the bandwidth, and the
instructions of the busiest scheduler, one after the other without any wait. Waiting for memory and
for results comes on top where a scheduler has few warps, so a measured time lies above it. Bytes
count activations, kept states and partial sums; B, C and parameters are shared by channels and left
out. Peak rates are the makers' own."""


def compile_all(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield a row for each kernel, type and target, with ``error`` where it does not compile."""
    from benchmarks import gpu_compiler
    from vmm.ops.conv import triton_kernels
    from vmm.ops.scan import triton_backward, triton_forward

    for module, name in (
        (triton_forward, "forward_kernel"),
        (triton_backward, "backward_kernel"),
        (triton_kernels, "forward_kernel"),
        (triton_kernels, "backward_kernel"),
    ):
        if not isinstance(getattr(module, name), gpu_compiler.Compiles):
            setattr(module, name, gpu_compiler.Compiles(getattr(module, name)))
    cases = [(*build, name) for build in sizes.builds for name in sizes.kernels]
    for target, dtype, name in report.progress(cases, "kernels"):
        gpu_compiler.pretend(target)
        gpu_compiler.compiled.clear()
        row: dict[str, Any] = {"kernel": name, "type": dtype, "target": target}
        began = time.perf_counter()
        try:
            KERNELS[name].prepare(getattr(torch, dtype), SMALL, "cpu")()
            found = gpu_compiler.compiled[KERNELS[name].place].kernel
            used = gpu_compiler.resources(found)
        except Exception as error:  # noqa: BLE001  a compiler may fail in any way
            yield row | {"error": f"{type(error).__name__}: {error}"[:300]}
            continue
        row |= {"compile_s": time.perf_counter() - began}
        yield row | columns(used, KERNELS[name]) | estimates(used, name, dtype, target)


def columns(used: Resources, kernel: Kernel) -> dict[str, Any]:
    """Return what a kernel takes, as parts of a row."""
    code = per_iteration(used)
    return {
        "registers": used.registers,
        "spilled_bytes": used.spilled,
        "spills_in_loops": used.spills_in_loops,
        "shared_bytes": used.shared,
        "threads": used.threads,
        "instructions_per_step": code[0] / kernel.span,
        "special_per_step": code[1] / kernel.span,
    }


def per_iteration(used: Resources) -> tuple[float, float]:
    """Return instructions and special ones of one iteration of one direction, or of all code."""
    if not used.loops:
        return float(used.whole.instructions), float(used.whole.special)
    branches = BRANCHES if len(used.loops) > 1 else 1
    instructions, special = (sum(x) / branches for x in zip(*used.loops, strict=True))
    return instructions, special


def floors_of(names: list[str], shape: Shape, size: int, gpu: Gpu) -> dict[str, float]:
    """Return what bounds some kernels in turn -> seconds at the stated peak rates.

    Args:
        names: Keys of ``KERNELS``.
        shape: Of the inputs.
        size: Bytes of their type.
        gpu: With its rates.
    """
    kernels = [KERNELS[name] for name in names]
    elements = shape.batch * shape.channels * shape.length
    peak = gpu.schedulers * gpu.warp * gpu.hertz
    least = sum(own * size + single * 4 for own, single in (x.least for x in kernels))
    return {
        "bytes": elements * least / gpu.bandwidth,
        "multiply-adds": elements * sum(x.operations for x in kernels) * gpu.multiply_add / peak,
        "special": elements * sum(x.special for x in kernels) * gpu.special / peak,
    }


def estimates(used: Resources, name: str, dtype: str, target: str) -> dict[str, Any]:
    """Return bytes, floor and estimate in microseconds at every shape, as parts of a row."""
    gpu, kernel = GPUS[target], KERNELS[name]
    size = getattr(torch, dtype).itemsize
    found: dict[str, Any] = {}
    for shape in SHAPES:
        elements = shape.batch * shape.channels * shape.length
        moved = elements * (kernel.moved[0] * size + kernel.moved[1] * 4)
        floors = floors_of([name], shape, size, gpu)
        warps = programs(name, shape, used.threads) * used.threads // gpu.warp
        instructions, special = per_iteration(used)
        cycles = max(instructions * gpu.issue, special * gpu.special)
        cycles *= -(-kernel.steps(shape.length) // kernel.span)
        issued = cycles * -(-warps // gpu.schedulers) / gpu.hertz
        bound = max(floors, key=lambda x: floors[x])
        found |= {
            f"{shape.name}: {key}": value
            for key, value in {
                "MB moved": moved / 1e6,
                "GFLOP": 2 * elements * kernel.operations / 1e9,
                "busy": min(1.0, warps / gpu.schedulers),
                "floor_us": 1e6 * floors[bound],
                "floor of": bound,
                "estimate_us": 1e6 * max(moved / gpu.bandwidth, issued),
            }.items()
        }
    return found


def tables(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return what kernels take, and the estimates at every shape."""
    head = ["kernel", "type", "target", "registers", "spilled_bytes", "spills_in_loops"]
    head += ["shared_bytes", "threads", "instructions_per_step", "special_per_step"]
    good = [row for row in rows if "error" not in row]
    found = {"What a thread and a program take": report.table(*_lines(good, head, ""))}
    for shape in SHAPES:
        keys = ["MB moved", "GFLOP", "busy", "floor_us", "floor of", "estimate_us"]
        lines = _lines(good, ["kernel", "type", "target"], f"{shape.name}: ", keys)
        found[f"Estimate, {shape.name}"] = report.table(*lines)
    rates = [
        [key, gpu.name, *(report.number(x) for x in (gpu.bandwidth / 1e12, gpu.hertz / 1e9))]
        + [str(x) for x in gpu[2:3] + gpu[4:]]
        for key, gpu in GPUS.items()
    ]
    rate_head = ["target", "GPU", "TB/s", "GHz", "schedulers", "threads of a warp"]
    rate_head += ["cycles of a multiply-add", "of an instruction", "of exp, log, 1 / x"]
    found["Stated peak rates"] = report.table(rate_head, rates)
    return found


def _lines(
    rows: list[dict[str, Any]], head: list[str], prefix: str, more: list[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    keys = [*head, *(prefix + key for key in more or [])]
    cells = [
        [report.number(x) if isinstance(x, float) else str(x) for x in (row[key] for key in keys)]
        for row in rows
    ]
    return [*head, *(more or [])], cells


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises: all compile, and nothing is spilled in a loop."""
    failed = sum("error" in row for row in rows)
    spills = max((row["spills_in_loops"] for row in rows if "error" not in row), default=0)
    return [
        report.Bar("kernels that do not compile", 0, failed, at_most=True),
        report.Bar("instructions in loops that touch spilled bytes", 0, spills, at_most=True),
    ]


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw floor and estimate of every kernel, one panel for each shape; one type."""
    figure, axes = report.new_figure(len(SHAPES))
    rows = [row for row in rows if "error" not in row and row["type"] == rows[0]["type"]]
    names = [f"{row['kernel']}, {row['target']}" for row in rows]
    figure.set_size_inches(12, 2 + 0.25 * len(names))
    for axis, shape in zip(axes[0], SHAPES, strict=True):
        for key, dot in (("floor_us", "|"), ("estimate_us", "o")):
            axis.plot([row[f"{shape.name}: {key}"] for row in rows], names, dot, label=key[:-3])
        axis.set(title=shape.name, xscale="log", xlabel="microseconds, not measured")
        axis.legend(frameon=False)
    return figure


def main() -> None:
    """Compile, and write the three files."""
    os.environ.pop("TRITON_INTERPRET", None)
    options = report.options("benchmarks.kernels", __doc__ or "", "bfloat16 for one target")
    sizes = SHORT if options.short else LONG
    rows = list(compile_all(sizes))
    failed = [row for row in rows if "error" in row]
    notes = [f"{r['kernel']}, {r['type']}, {r['target']}: {r['error']}" for r in failed]
    settings = {
        "shapes": [x._asdict() for x in SHAPES],
        "gpus": {key: gpu._asdict() for key, gpu in GPUS.items()},
    }
    title = "What the Triton kernels take of a GPU (compiled, not run)"
    result = report.Report("kernels", title, TEXT, settings, rows, tables(rows), bars(rows), notes)
    print(result.write(options, draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
