"""Time, error and memory of the selective scan, against other implementations.

``python -m benchmarks.scan [--short]``. Compare the ratios rather than the milliseconds. With a
GPU, the GPU is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import common, peers, report, scan_report
from benchmarks.scan_cases import (
    BOTH,
    FORWARD,
    ONE,
    TRAINING,
    YARDSTICKS,
    Case,
    calls,
    make_inputs,
    our_scans,
    why_no_ggml,
)
from benchmarks.scan_report import ERROR, GRADIENTS, OUTPUT
from vmm.ops.scan.selective_scan import selective_scan
from vmm.ops.tuning.cpu_memory import keep_freed_memory

WIDTHS = {"Ti": 384, "M": 1152}  # d_inner of VideoMamba-Ti and -M


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        widths: Keys of ``WIDTHS``.
        lengths: Tokens.
        batches: Batch sizes; the first one also gets memory and bfloat16.
        exact_lengths: Tokens where ours are compared with float64; others only at the first.
        rounds: See ``common.Race``.
        limit_s: See ``common.Race``.
    """

    widths: tuple[str, ...]
    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    exact_lengths: tuple[int, ...]
    rounds: int
    limit_s: float


SHORT = Sizes(("Ti",), (197, 785, 1569), (1,), (197, 1569), 3, 1.2)
LONG = Sizes(
    ("Ti", "M"), (197, 393, 785, 1569, 3137, 6273, 12545), (1, 4), (197, 1569, 12545), 9, 3.0
)


def cases(sizes: Sizes) -> list[Case]:
    """Return all that is timed; keeping freed memory cannot be undone, so that comes last."""
    found = []
    for width, what in itertools.product(sizes.widths, (FORWARD, TRAINING)):
        for task, batch in itertools.product((ONE, BOTH), sizes.batches):
            found.append(Case(task, what, WIDTHS[width], batch))
        found.append(Case(ONE, what, WIDTHS[width], sizes.batches[0], "bfloat16"))
    if common.device().type == "cpu":
        again = [case for case in found if case.task == ONE and case.dtype == "float32"]
        found += [case._replace(kept=True) for case in again if case.batch == sizes.batches[0]]
    return found


def time_case(case: Case, sizes: Sizes, scans: dict[str, peers.Scan]) -> list[dict[str, Any]]:
    """Time all variants at all lengths, with the memory of training at the first batch size."""
    if case.dtype == "bfloat16":
        scans = dict(list(our_scans().items())[:1])
    if case.kept:
        keep_freed_memory()
    rows = []
    race = common.Race(sizes.rounds, sizes.limit_s)
    for length in sizes.lengths:
        running, inputs = calls(case, length, scans)
        for name, timing in race.run(length, running).items():
            row = case._asdict() | {"length": length, "variant": name}
            row |= {"ms": 1e3 * timing.fastest, "median_ms": 1e3 * timing.median}
            row["runs"] = timing.runs
            wanted = case == Case(case.task, TRAINING, case.width, sizes.batches[0])
            if wanted and name not in YARDSTICKS and timing.fastest < sizes.limit_s / 4:
                row |= memory(running[name], inputs[0])
            rows.append(row)
    return rows


def memory(call: Callable[[], list[Tensor]], u: Tensor) -> dict[str, float]:
    """Return what a call needs beyond inputs, outputs and gradients, as parts of a row."""
    extra = common.extra_memory(call)
    if extra is None:
        return {}
    return {"extra_mib": extra / 2**20, "extra_activations": extra / common.num_bytes([u])}


def errors(scans: dict[str, peers.Scan], width: int, length: int) -> list[dict[str, Any]]:
    """Compare output and every gradient with the reference loop in float64."""
    inputs = make_inputs(width, length)

    def evaluate(scan: peers.Scan, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        out = scan(*leaves)
        return [out.detach(), *torch.autograd.grad(out.square().mean(), leaves)]

    def loop(*x: Tensor) -> Tensor:
        return selective_scan(*x, delta_softplus=True, backend="reference")

    exact = evaluate(loop, torch.float64)
    rows = []
    for name, scan in scans.items():
        pairs = zip(evaluate(scan, torch.float32), exact, strict=True)
        found = zip((OUTPUT, *GRADIENTS), itertools.starmap(common.error, pairs), strict=True)
        rows.append(
            {"task": ERROR, "width": width, "length": length, "variant": name, **dict(found)}
        )
    return rows


def measure(sizes: Sizes) -> tuple[list[dict[str, Any]], list[str]]:
    """Return all rows, and notes on what could not be measured."""
    ours = our_scans()
    others, notes = peers.scans()
    notes += [why for why in [why_no_ggml()] if why]
    rows = []
    for case in report.progress(cases(sizes), "scan"):
        rows += time_case(case, sizes, ours | others)
    first, *longer = sizes.exact_lengths
    width = WIDTHS[sizes.widths[0]]
    rows += errors(ours | others, width, first)
    for length in report.progress(longer, "error"):
        fast = {name: scan for name, scan in ours.items() if name != "vmm reference"}
        rows += errors(fast, width, length)
    return rows, notes


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.scan", __doc__, "three lengths of batch 1 of Ti")
    sizes = SHORT if options.short else LONG
    rows, notes = measure(sizes)
    result = scan_report.build(rows, notes, sizes._asdict())
    print(result.write(options, scan_report.draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
