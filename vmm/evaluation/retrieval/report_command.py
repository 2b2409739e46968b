"""The page of some results and runs.

vmm eval report --out report.html --run "stage 2=RUN" --result "VideoMamba=FILE.json"

Without --result it is about the runs alone, as the report.html that each run has in its folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status
from vmm.evaluation.common.command import named_path, read_steps
from vmm.text_output import say


def main(args: Sequence[str] | None = None, prog: str = "vmm eval report") -> int:
    """Write the report and print its table; status 2 for a mistake in the arguments."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the HTML file to write")
    parser.add_argument(
        "--run", type=named_path, action="append", default=[], metavar="NAME=DIR",
        help="a run directory whose curves to show; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--result", type=named_path, action="append", default=[], metavar="NAME=PATH",
        help="a retrieval.json or its folder; repeatable, the first is the headline",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=Path, help='how it was made: JSON list of {"name", "command", "seconds"}'
    )
    parser.add_argument("--title", help="heading of the page (default: what it is about)")
    options = parser.parse_args(args)
    return run_to_status(prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.retrieval.page import build_report

    steps = read_steps(options.steps) if options.steps else []
    table = build_report(options.out, options.run, options.result, steps, options.title)
    say(f"{table}\n\nreport: {options.out}", lines=True)
    return 0
