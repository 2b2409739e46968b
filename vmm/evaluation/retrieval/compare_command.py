"""Two results side by side: is one model better, or was it luck?

``vmm eval compare A/retrieval.json B/retrieval.json`` compares query by query, since both
models answered the same ones. Intervals are a bootstrap over videos of the difference; p-values are
those of a permutation test that swaps the two models' answers to all queries of a video. Results
that were not measured alike are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status
from vmm.text_output import say


def main(args: Sequence[str] | None = None, prog: str = "vmm eval compare") -> int:
    """Print the comparison; status 2 for results that cannot be compared."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("a", type=Path, help="retrieval.json of the one, or its folder")
    parser.add_argument("b", type=Path, help="retrieval.json of the other, or its folder")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    options = parser.parse_args(args)
    return run_to_status(prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.retrieval.compare import compare, comparison_text
    from vmm.evaluation.retrieval.results import RetrievalResult

    a, b = (RetrievalResult.read(path) for path in (options.a, options.b))
    found = compare(a, b)
    say(comparison_text(a, b, found), lines=True)
    if a.content() == b.content():
        say(f"{options.a} and {options.b} are the same result: it is no better than itself")
    if options.out:
        content = {"a": a.name, "b": b.name, "differences": [d._asdict() for d in found]}
        options.out.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 0
