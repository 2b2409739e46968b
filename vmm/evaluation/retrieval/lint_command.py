"""What is off with scores from anywhere, texts by videos in the order of the annotation file.

vmm eval lint scores.npy --dataset msrvtt-1ka --annotations MSRVTT_JSFUSION_test.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, percent, run_to_status
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.text_output import say


def main(args: Sequence[str] | None = None, prog: str = "vmm eval lint") -> int:
    """Print metrics and findings; status 2 for a mistake in what it was given."""
    parser = CommandParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scores", type=Path, help=".npy or .safetensors, texts by videos, higher is better")
    add("--dataset", required=True, help=f"what it is called: {', '.join(PROTOCOLS)}")
    add("--annotations", type=Path, required=True, help="the official annotation file")
    add("--ids", type=Path, help="list of the ids to keep of it")
    add("--train-ids", type=Path, help="ids or annotations of what the model was trained on")
    add("--t2v", type=percent, help="the text-to-video R@1 that was reported")
    add("--v2t", type=percent, help="the video-to-text R@1 that was reported")
    options = parser.parse_args(args)
    return run_to_status(prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.retrieval.lint_file import lint_file

    reported = {d: v for d in ("t2v", "v2t") if (v := getattr(options, d)) is not None}
    files = (options.annotations, options.ids, options.train_ids)
    say(lint_file(options.scores, options.dataset, *files, reported), lines=True)
    return 0
