"""The page of classes of which each is another one backwards: who sees the order of frames?

python -m eval.twins --classes classes.json --result "VideoMamba=FOLDER" --out page.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status
from vmm.evaluation.common.command import named_path, read_steps
from vmm.text_output import say


def main(args: Sequence[str] | None = None) -> int:
    """Write the page and print its table; status 2 for a mistake in the arguments."""
    parser = CommandParser(prog="python -m eval.twins", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the HTML file to write")
    parser.add_argument(
        "--classes", type=Path, required=True, help="classes.json of python -m data_prep.motions"
    )
    parser.add_argument(
        "--result", type=named_path, action="append", required=True, metavar="NAME=PATH",
        help="a classification.json or its folder; repeatable, the first is the headline",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=Path, help='how it was made: JSON list of {"name", "command", "seconds"}'
    )
    options = parser.parse_args(args)
    return run_to_status("eval.twins", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.classification.results import ClassificationResult
    from vmm.evaluation.classification.twins import build_twin_page, read_twins

    results = [(name, ClassificationResult.read(path)) for name, path in options.result]
    steps = read_steps(options.steps) if options.steps else []
    shown = [step | {"seconds": f"{step['seconds']:.0f}"} for step in steps]
    table = build_twin_page(options.out, results, read_twins(options.classes), shown)
    say(f"{table}\n\npage: {options.out}", lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
