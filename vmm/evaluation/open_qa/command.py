"""Open questions about videos: accuracy of a trained answer decoder, with its controls.

    vmm eval open-qa --run RUN --dataset msrvtt-qa --annotations test.jsonl \
        --answers answers.json --media videos/
    vmm eval open-qa --run RUN --shards 'data/demo/test-*.tar'

The run is one of recipes/answer_qa.yaml: it was trained on questions and answers, so its numbers
are never zero-shot. Each question gets the most probable answer of the list, exactly, and is right
if its words are those of a known answer. Beside it: the same question about a blank video, and
always the most frequent right answer to questions of that kind. An evaluation that was stopped goes
on from the videos it had asked about.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.evaluation.common.command import (
    add_batches,
    add_coverage,
    add_data,
    new_parser,
    run_command,
)
from vmm.evaluation.open_qa.protocols import OPEN_SETS

if TYPE_CHECKING:
    from vmm.evaluation.common.results import Result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = new_parser(prog, __doc__, "run directory of recipes/answer_qa.yaml")
    add_data(parser, "pattern of shards whose JSON asks questions", list(OPEN_SETS))
    help_text = "JSON list to rank (default: the list of the run's recipe)"
    parser.add_argument("--answers", type=Path, help=help_text)
    add_coverage(parser, "questions about unreadable videos are wrong (strict), or dropped")
    add_batches(parser, 32, "questions about a video read at once")
    return parser


def _evaluate(values: dict[str, Any], command: str) -> Result:
    from vmm.evaluation.open_qa.options import Options
    from vmm.evaluation.open_qa.run import evaluate

    return evaluate(Options(**values), command)


def main(args: Sequence[str] | None = None, prog: str = "vmm eval open-qa") -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command(_parser(prog), _evaluate, args)
