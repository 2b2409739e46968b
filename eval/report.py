"""The page of some results.

python -m eval.report --out report.html --run "stage 2=RUN" --result "VideoMamba=FILE.json"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmm.command_line import CommandParser, run_to_status
from vmm.text_output import say


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Read what ``eval.demo.run_steps`` wrote."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))
        return [
            {
                "name": str(step["name"]),
                "command": str(step["command"]),
                "seconds": float(step["seconds"]),
            }
            for step in steps
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not a JSON list of name, command and seconds: {error!r}"
        ) from error


def named_path(text: str) -> tuple[str, Path]:
    """Take NAME=PATH apart."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)


def main(args: Sequence[str] | None = None) -> int:
    """Write the report and print its table; status 2 for a mistake in the arguments."""
    parser = CommandParser(prog="python -m eval.report", description=__doc__)
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
    parser.add_argument("--title", default="Video-text retrieval")
    options = parser.parse_args(args)
    return run_to_status("eval.report", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.retrieval.page import build_report

    steps = read_steps(options.steps) if options.steps else []
    table = build_report(options.out, options.run, options.result, steps, options.title)
    say(f"{table}\n\nreport: {options.out}", lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
