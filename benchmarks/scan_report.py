"""Bars, tables and picture of the scan's benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import common, report
from benchmarks.scan_cases import (
    BOTH,
    FORWARD,
    ONE,
    ONE_CALL,
    STATES,
    TRAINING,
    TWO_CALLS,
    YARDSTICK,
    Case,
    our_scans,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR, OUTPUT = "error", "output"
GRADIENTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
ONE_FRAME, EIGHT_FRAMES = 197, 1569  # tokens
OURS, FALLBACK = next(iter(our_scans())), "vmm chunked"
GOALS = {FORWARD: (13, 45, 6), TRAINING: (14, 50, 7)}
"""At one frame, from eight frames on, and for the fallback from eight frames on."""

TEXT = f"""The fastest of several runs, all variants in turns; {STATES} states, with step-size bias,
softplus, skip and gate. `{YARDSTICK}` are the matrix products of the block around one scan.
`{TWO_CALLS}` flips what enters and leaves the second half of a published block. A dash: one run was
expected to take too long. Extra memory is the peak of forward and backward beyond inputs, output
and gradients; one activation is (batch, tokens, width) in float32."""

Rows = list[dict[str, Any]]
Lines = dict[str, dict[int, float]]


def build(rows: Rows, notes: list[str], settings: dict[str, Any]) -> report.Report:
    """Return the report on all rows."""
    title = f"Selective scan on {'one CPU thread' if _on_cpu() else 'a GPU'}"
    return report.Report("scan", title, TEXT, settings, rows, tables(rows), bars(rows), notes)


def _on_cpu() -> bool:
    return common.device().type == "cpu"


def cases(rows: Rows) -> list[Case]:
    """Return the cases that were timed."""
    found = (_case(row) for row in rows if row["task"] != ERROR)
    return list(dict.fromkeys(found))


def _case(row: dict[str, Any]) -> Case:
    return Case(*(row[field] for field in Case._fields))


def lines(rows: Rows, case: Case, value: str = "ms") -> Lines:
    """Return variant -> tokens -> value of one case."""
    found: Lines = {}
    for row in rows:
        if row["task"] != ERROR and _case(row) == case and value in row:
            found.setdefault(row["variant"], {})[row["length"]] = row[value]
    return found


def gains(times: Lines, ours: str, others: list[str] | None = None) -> dict[int, float]:
    """Return by length how many times the fastest of the others (None: other packages) takes."""
    if others is None:
        others = [name for name in times if name != YARDSTICK and not name.startswith("vmm")]
    found = {}
    for length, mine in times.get(ours, {}).items():
        theirs = [times[name][length] for name in others if length in times.get(name, {})]
        if theirs:
            found[length] = min(theirs) / mine
    return found


def bars(rows: Rows) -> list[report.Bar]:
    """Return the promises for this device, and what became of them."""
    found: list[report.Bar] = []
    for case in cases(rows):
        if case.batch == 1 and case.dtype == "float32":
            found += _speed_bars(lines(rows, case), case)
            found += _memory_bars(lines(rows, case, "extra_activations"), case)
    ours = [row for row in rows if row["task"] == ERROR and row["variant"] == OURS]
    for what, goal, keys in (
        ("output", 2e-6, [OUTPUT]),
        ("worst gradient", 1e-5, list(GRADIENTS)),
    ):
        worst = max((row[key] for row in ours for key in keys), default=float("nan"))
        found.append(report.Bar(f"{OURS}: error of the {what}", goal, worst, at_most=True))
    return found


def _speed_bars(times: Lines, case: Case) -> Iterator[report.Bar]:
    where = f"{case.what}, width {case.width}"
    if case.task == BOTH:
        goals = [(ONE_CALL, [TWO_CALLS], TWO_CALLS, 1.3 if _on_cpu() else 1.5)]
    elif _on_cpu():
        at_one, goal, fallback_goal = GOALS[case.what]
        gain = gains(times, OURS).get(ONE_FRAME)
        if gain is not None:
            text = f"{OURS} against other packages, {where}, {ONE_FRAME} tokens"
            yield report.Bar(text, at_one, gain)
        goals = [
            (OURS, None, "other packages", goal),
            (FALLBACK, None, "other packages", fallback_goal),
        ]
    else:
        goals = []
    for ours, others, against, goal in goals:
        long = [x for n, x in gains(times, ours, others).items() if n >= EIGHT_FRAMES]
        if long:
            text = f"{ours} against {against}, {where}, least from {EIGHT_FRAMES} tokens on"
            yield report.Bar(text, goal, min(long))


def _memory_bars(memory: Lines, case: Case) -> Iterator[report.Bar]:
    for name in (OURS, ONE_CALL):
        long = [x for n, x in memory.get(name, {}).items() if n >= EIGHT_FRAMES]
        if long:
            text = f"{name}: extra memory in activations, width {case.width}, most from "
            yield report.Bar(text + f"{EIGHT_FRAMES} tokens on", 0.5, max(long), at_most=True)
    long = [
        mine / memory[TWO_CALLS][length]
        for length, mine in memory.get(ONE_CALL, {}).items()
        if not _on_cpu() and length >= EIGHT_FRAMES
    ]
    if long:
        text = f"extra memory of one call : {TWO_CALLS}, width {case.width}"
        yield report.Bar(text, 0.5, max(long), at_most=True)


def tables(rows: Rows) -> dict[str, str]:
    """Return times, memory and errors as tables with one column for each variant."""
    found = {}
    for task in (ONE, BOTH):
        chosen = [case for case in cases(rows) if case.task == task]
        found[f"Milliseconds, {task}"] = _table(rows, chosen, "ms")
    trained = [case for case in cases(rows) if lines(rows, case, "extra_mib")]
    if trained:
        found["Extra memory of forward and backward, MiB"] = _table(rows, trained, "extra_mib")
    found["Largest error against float64, as a share of the largest value"] = report.table(
        ["tokens", "variant", OUTPUT, *(f"d {x}" for x in GRADIENTS)],
        [
            [str(row["length"]), row["variant"]]
            + [f"{row[key]:.1e}" for key in (OUTPUT, *GRADIENTS)]
            for row in rows
            if row["task"] == ERROR
        ],
    )
    return found


def _table(rows: Rows, chosen: list[Case], value: str) -> str:
    of_case = {case: lines(rows, case, value) for case in chosen}
    names = list(dict.fromkeys(name for found in of_case.values() for name in found))
    head = ["pass", "width", "batch", "inputs", "tokens", *names]
    body = []
    for case, found in of_case.items():
        for length in sorted({n for points in found.values() for n in points}):
            numbers = [report.number(found.get(name, {}).get(length)) for name in names]
            place = [case.what, str(case.width), str(case.batch), case.dtype, str(length)]
            body.append([*place, *numbers])
    return report.table(head, body)


def draw(rows: Rows) -> Figure:
    """Draw time and memory against length: for each width four panels, batch 1, float32."""
    widths = list(dict.fromkeys(case.width for case in cases(rows)))
    figure, axes = report.new_figure(2, 2 * len(widths))
    for i, width in enumerate(widths):
        panels = axes[2 * i : 2 * i + 2].flatten()
        one = {what: Case(ONE, what, width, 1) for what in (FORWARD, TRAINING)}
        both = {what: Case(BOTH, what, width, 1) for what in (FORWARD, TRAINING)}
        for axis, (what, case) in zip(panels, one.items(), strict=False):
            _draw(axis, lines(rows, case), f"one direction, {what}, width {width}", "ms")
        pairs = {
            f"{name}, {what}": points
            for what, case in both.items()
            for name, points in lines(rows, case).items()
        }
        _draw(panels[2], pairs, f"both directions, width {width}", "ms")
        memory = lines(rows, one[TRAINING], "extra_mib")
        memory |= lines(rows, both[TRAINING], "extra_mib")
        _draw(panels[3], memory, f"extra memory, forward+backward, width {width}", "MiB")
    return figure


def _draw(axis: Any, found: Lines, title: str, unit: str) -> None:
    points = {name: list(line.items()) for name, line in found.items()}
    report.draw_lines(axis, points, title=title, xlabel="tokens", ylabel=unit)
    axis.legend(fontsize=8)
