"""How a benchmark reads its command line and writes its report: numbers, page and picture."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from benchmarks.common import hardware, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
Item = TypeVar("Item")


class Options(NamedTuple):
    """What every benchmark's command line says."""

    short: bool
    output: Path


def options(prog: str, description: str, short: str) -> Options:
    """Read the command line, and leave PyTorch one thread.

    Args:
        prog: ``benchmarks.<name>``.
        description: The script's docstring.
        short: What ``--short`` leaves out.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    return Options(given.short, given.output)


def progress(items: Sequence[Item], name: str) -> Iterable[Item]:
    """Go through the items behind a progress bar with the time left, on stderr."""
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, desc=name, unit="case", leave=False)
    return bar


class Bar(NamedTuple):
    """A number that was promised, beside the one that was measured."""

    what: str
    promised: float
    measured: float
    at_most: bool = False
    """A limit rather than a least value."""

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.measured <= self.promised if self.at_most else self.measured >= self.promised


class Report(NamedTuple):
    """What one benchmark found.

    Args:
        name: Of the script; begins the files' names.
        title: Heads the page.
        text: One paragraph: what was measured and how to read it.
        settings: What was the same in all rows.
        rows: One dictionary for each measured number; the keys are the columns.
        tables: Heading to a table of ``table``.
        bars: Promises and measurements.
        notes: What could not be measured, and why.
    """

    name: str
    title: str
    text: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    tables: dict[str, str]
    bars: list[Bar]
    notes: list[str]

    def write(self, options: Options, figure: Figure) -> Path:
        """Write the numbers (JSON), the page (Markdown) and the picture; return the page."""
        today = datetime.date.today().isoformat()
        machine = hardware()
        chip = str(machine.get("gpu", machine["cpu"])).lower()
        slug = re.sub(r"[^a-z0-9]+", "-", chip).strip("-")
        stem = f"{self.name}_{slug}_{today}" + ("_short" if options.short else "")
        packages = versions()
        result = {
            "date": today,
            "hardware": machine,
            "versions": packages,
            "settings": self.settings,
            "notes": self.notes,
            "bars": [bar._asdict() | {"met": bar.met} for bar in self.bars],
            "rows": self.rows,
        }
        options.output.mkdir(parents=True, exist_ok=True)
        page = options.output / f"{stem}.md"
        page.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        where = ", ".join(f"{k} {v}" for k, v in (machine | packages).items())
        page.write_text(self._page(f"{self.title}, {today}", where, stem), "utf-8")
        figure.savefig(page.with_suffix(".png"), dpi=110)
        return page

    def _page(self, title: str, where: str, picture: str) -> str:
        parts = [f"# {title}", f"{where}.", self.text]
        if self.bars:
            parts += ["## Bars", bar_table(self.bars)]
        parts.append(f"![{self.title}]({picture}.png)")
        for heading, lines in self.tables.items():
            parts += [f"## {heading}", lines]
        if self.notes:
            parts += ["## Notes", "\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(parts) + "\n"


def bar_table(bars: Iterable[Bar]) -> str:
    """Return the bars as a table."""
    rows = [
        [
            bar.what,
            f"at {'most' if bar.at_most else 'least'} {number(bar.promised)}",
            number(bar.measured),
            "yes" if bar.met else "NO",
        ]
        for bar in bars
    ]
    return table(["", "bar", "measured", "met?"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits; a dash for what was not measured."""
    if value is None or math.isnan(value):
        return "-"
    small_or_large = value != 0 and not 1e-3 <= abs(value) < 1e6
    return f"{value:.1e}" if small_or_large else f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    return 0 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 4)


def new_figure(columns: int, rows: int = 1) -> tuple[Figure, Any]:
    """Return a figure and its axes, (rows, columns), without a window."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        rows, columns, figsize=(5.4 * columns, 4.4 * rows), squeeze=False, layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    return figure, axes


def draw_lines(
    axis: Any, lines: Mapping[str, Sequence[tuple[float, float]]], **labels: str
) -> None:
    """Draw named lines of points (x, y) on logarithmic axes; names that begin with vmm are bold.

    Args:
        axis: Of ``new_figure``.
        lines: Name to points; a colour belongs to a place in this order, also where it is empty.
        labels: ``title``, ``xlabel``, ``ylabel``.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for place, (name, points) in enumerate(lines.items()):
        if points:
            width = 2.4 if name.startswith("vmm") else 1.2
            xs, ys = zip(*points, strict=True)
            axis.plot(xs, ys, marker="o", ms=4, lw=width, color=f"C{place}", label=name)
    axis.set(xscale="log", yscale="log", **labels)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks], minor=False)
    axis.set_xticks([], minor=True)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(visible=True, which="major", alpha=0.3)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "frameon": False}
    axis.legend(fontsize=8, ncols=2, **below)
