"""Bars, tables and picture of the scan's benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import common, ggml, report
from benchmarks.scan_cases import (
    BOTH,
    COPY,
    FORWARD,
    LINEAR,
    ONE,
    ONE_CALL,
    STATES,
    TRAINING,
    TWO_CALLS,
    YARDSTICKS,
    Case,
    our_scans,
    state_updates,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR, OUTPUT = "error", "output"
GRADIENTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
ONE_FRAME, EIGHT_FRAMES = 197, 1569  # tokens
LONG = f"from {EIGHT_FRAMES} tokens on"
OURS, FALLBACK = next(iter(our_scans())), "vmm chunked"
GOALS = {FORWARD: (13, 45, 6), TRAINING: (14, 50, 7)}
"""At one frame, from eight frames on, and for the fallback from eight frames on."""
GGML_GOAL = 15

TEXT = f"""The fastest of several runs, all variants in turns; {STATES} states, with step-size bias,
softplus, skip and gate. `{LINEAR}` are the matrix products of the block around one scan,
`{COPY}` the floor that memory sets: every input and output, and every gradient, moved once.
`{TWO_CALLS}` flips what enters and leaves the second half of a published block. A dash: one run was
expected to take too long. `{ggml.NAME}` has neither skip nor gate. By default the C library gives
freed memory back to the system and pays for every page again, which costs packages with large
intermediate results most; vmm's commands keep it (vmm.ops.tuning.cpu_memory), which makes others
faster too. Extra memory is the peak of forward
and backward beyond inputs, output and gradients; one activation is (batch, tokens, width) in
float32.
Bars are the worst of all widths at batch 1."""
ARITHMETIC = """The floor that arithmetic sets: forward, one update of 16 channels' state takes 7
operations of the multiply-add units, a power of two among them, and backward 15; at two a cycle and
3.9 GHz, as the AMD EPYC with AVX-512 for which the bars were set, that is 56 picoseconds per state
update, and 176 for both passes. Units that add, too, as those of Intel, take nearly twice that."""

Rows = list[dict[str, Any]]
Lines = dict[str, dict[int, float]]


def build(rows: Rows, notes: list[str], settings: dict[str, Any]) -> report.Report:
    """Return the report on all rows."""
    title = f"Selective scan on {common.place()}"
    text = f"{TEXT}\n{ARITHMETIC}" if _on_cpu() else TEXT
    return report.Report("scan", title, text, settings, rows, tables(rows), bars(rows), notes)


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
        apart = (*YARDSTICKS, ggml.NAME)
        others = [name for name in times if name not in apart and not name.startswith("vmm")]
    found = {}
    for length, mine in times.get(ours, {}).items():
        theirs = [times[name][length] for name in others if length in times.get(name, {})]
        if theirs:
            found[length] = min(theirs) / mine
    return found


def bars(rows: Rows) -> list[report.Bar]:
    """Return the promises for this device and what became of them, the worst of all widths."""
    found = list(_package_bars(rows)) if _on_cpu() else []
    for what in (FORWARD, TRAINING):
        gain = [gains(x, ONE_CALL, [TWO_CALLS]) for x in _of(rows, BOTH, what)]
        goal = 1.3 if _on_cpu() else 1.5
        text = f"{ONE_CALL}: times faster than {TWO_CALLS}, {what}, {LONG}"
        found += _worst(text, goal, [x for one in gain for x in _long(one)])
    for task, name in ((ONE, OURS), (BOTH, ONE_CALL)):
        memory = [x.get(name, {}) for x in _of(rows, task, TRAINING, "extra_activations")]
        text = f"{name}: extra memory in activations, {LONG}"
        found += _worst(text, 0.5, [x for one in memory for x in _long(one)], at_most=True)
    if not _on_cpu():
        parts = [
            mine / memory[TWO_CALLS][length]
            for memory in _of(rows, BOTH, TRAINING, "extra_mib")
            for length, mine in memory[ONE_CALL].items()
            if length >= EIGHT_FRAMES
        ]
        found += _worst(f"extra memory of one call : {TWO_CALLS}, {LONG}", 0.5, parts, True)
    ours = [row for row in rows if row["task"] == ERROR and row["variant"] == OURS]
    found += _worst(f"{OURS}: error of the output", 2e-6, [row[OUTPUT] for row in ours], True)
    gradients = [row[key] for row in ours for key in GRADIENTS]
    return found + _worst(f"{OURS}: error of the worst gradient", 1e-5, gradients, True)


def _package_bars(rows: Rows) -> Iterator[report.Bar]:
    for (what, goals), kept in itertools.product(GOALS.items(), (False, True)):
        times = _of(rows, ONE, what, kept=kept)
        after = f"than other packages, {what}{', freed memory kept' * kept}"
        at_one, goal, fallback_goal = goals
        ours = [gains(x, OURS) for x in times]
        first = [x[ONE_FRAME] for x in ours if ONE_FRAME in x]
        yield from _worst(f"{OURS}: times faster {after}, {ONE_FRAME} tokens", at_one, first)
        long = [x for one in ours for x in _long(one)]
        yield from _worst(f"{OURS}: times faster {after}, {LONG}", goal, long)
        long = [x for one in times for x in _long(gains(one, FALLBACK))]
        yield from _worst(f"{FALLBACK}: times faster {after}, {LONG}", fallback_goal, long)
    times = _of(rows, ONE, FORWARD)
    long = [x for one in times for x in _long(gains(one, OURS, [ggml.NAME]))]
    yield from _worst(f"{OURS}: times faster than {ggml.NAME}, {FORWARD}, {LONG}", GGML_GOAL, long)


def _of(rows: Rows, task: str, what: str, value: str = "ms", kept: bool = False) -> list[Lines]:
    """Return the lines of all widths, batch 1, float32."""
    return [
        lines(rows, case, value)
        for case in cases(rows)
        if case == Case(task, what, case.width, 1, kept=kept)
    ]


def _long(values: dict[int, float]) -> list[float]:
    return [x for length, x in values.items() if length >= EIGHT_FRAMES]


def _worst(text: str, goal: float, found: list[float], at_most: bool = False) -> list[report.Bar]:
    """Return one bar, or none where nothing was measured."""
    worst = (max if at_most else min)(found, default=None)
    return [] if worst is None else [report.Bar(text, goal, worst, at_most)]


def tables(rows: Rows) -> dict[str, str]:
    """Return times, memory and errors as tables with one column for each variant."""
    found = {}
    for task in (ONE, BOTH):
        chosen = [case for case in cases(rows) if case.task == task]
        found[f"Milliseconds, {task}"] = _table(rows, chosen, "ms")
    found["Distance to the floor"] = _floor(rows)
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


def _floor(rows: Rows) -> str:
    """Return how far ours are from only moving the bytes, at the longest sequence of each case."""
    head = ["task", "pass", "width", "batch", "inputs", "tokens", "variant", "ms", COPY]
    head += ["distance", "picoseconds per state update"]
    body = []
    for case, name in itertools.product(cases(rows), (OURS, ONE_CALL)):
        times = lines(rows, case)
        if case.kept or name not in times:
            continue
        length, mine = max(times[name].items())
        copied = times[COPY][length]
        place = [case.task, case.what, str(case.width), str(case.batch), case.dtype, str(length)]
        numbers = [mine, copied, mine / copied, 1e9 * mine / state_updates(case, length)]
        body.append([*place, name, *(report.number(x) for x in numbers)])
    return report.table(head, body)


def _table(rows: Rows, chosen: list[Case], value: str) -> str:
    of_case = {case: lines(rows, case, value) for case in chosen}
    names = list(dict.fromkeys(name for found in of_case.values() for name in found))
    head = ["pass", "width", "batch", "inputs", "freed memory", "tokens", *names]
    body = []
    for case, found in of_case.items():
        for length in sorted({n for points in found.values() for n in points}):
            numbers = [report.number(found.get(name, {}).get(length)) for name in names]
            place = [case.what, str(case.width), str(case.batch), case.dtype]
            place += ["kept" if case.kept else "given back", str(length)]
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
        order = [x for x in lines(rows, one[TRAINING]) if x not in YARDSTICKS]  # for the colours
        memory = {name: memory.get(name, {}) for name in (*order, ONE_CALL, TWO_CALLS)}
        _draw(panels[3], memory, f"extra memory, forward+backward, width {width}", "MiB")
    return figure


def _draw(axis: Any, found: Lines, title: str, unit: str) -> None:
    points = {name: list(line.items()) for name, line in found.items()}
    report.draw_lines(axis, points, title=title, xlabel="tokens", ylabel=unit)
