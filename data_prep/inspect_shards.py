"""Look into shards: counts, durations, sizes, captions, failures, and what they look like.

    python -m data_prep.inspect_shards 'data/demo/train-*.tar' -o inspected

What is written is in ``vmm.shards.inspection``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.shards.inspection import InspectOptions, in_words, inspect_shards
from vmm.text_output import say


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m data_prep.inspect_shards",
        description="Count, measure and show what is in shards.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("shards", nargs="+", help="paths with $VARIABLES, braces and wildcards")
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    add("--pictures", type=whole(0), default=48, help="samples on the contact sheet")
    add("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    help_text = "folder of a text encoder: which captions it cuts, which words it spells out"
    add("--tokenizer", type=Path, help=help_text)
    add("--max-words", type=whole(3), default=32, help="tokens that a caption may have")
    options = InspectOptions(**vars(parser.parse_args(argv)))

    def run() -> int:
        numbers = inspect_shards(options)
        say(f"{in_words(numbers)}\npage: {options.out / 'index.html'}", lines=True)
        return 0

    return run_to_status("data_prep.inspect_shards", run)


if __name__ == "__main__":
    sys.exit(main())
