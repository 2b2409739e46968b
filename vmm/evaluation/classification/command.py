"""Classification of videos: a trained classifier, or any video-text model by class prompts.

    vmm eval classification --run IMPORTED --dataset k400 --annotations val.csv --media clips/
    vmm eval classification --run RUN --shards 'data/demo/test-*.tar'
    vmm eval classification --run RUN --shards 'data/demo/test-*.tar' \
        --class-field attributes.shape --template 'a {} moves'

A run of stage 2 (or ``--model``) is compared with the classes' names in prompts, zero-shot; a
trained or imported classifier says probabilities. Every sample is seen in several views, which are
merged by sample. What cannot be read counts as wrong; what is off with classes, numbers or views is
said. An evaluation that was stopped goes on from the samples it had seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.command_line import whole
from vmm.evaluation.common.class_protocols import CLASS_PROTOCOLS
from vmm.evaluation.common.command import (
    add_batches,
    add_coverage,
    add_data,
    add_model,
    new_parser,
    run_command,
)

if TYPE_CHECKING:
    from vmm.evaluation.common.results import Result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = new_parser(prog, __doc__, "classifier, or run of stage 2")
    add_model(parser)
    add_data(parser, "pattern of shards whose JSON names the class", list(CLASS_PROTOCOLS))
    add = parser.add_argument
    add("--class-field", help="field of the JSON in --shards (default: as trained, or label)")
    add("--ids", type=Path, help="list of the ids to keep of the annotations")
    add(
        "--classes",
        type=Path,
        help="class names in the order of their numbers (default: as trained)",
    )
    add("--template", action="append", metavar="TEXT", dest="templates",
        help="prompt with {} for the class; repeatable")  # fmt: skip
    add("--clips", type=whole(1), help="clips per video (default: as published, or 1)")
    add("--crops", type=whole(1), help="crops per clip (default: as published, or 1)")
    add("--frame-order", choices=("forward", "reversed"), default="forward")
    add_coverage(parser, "unreadable samples are wrong (strict), or dropped")
    add("--num-frames", type=whole(1), help="frames per clip (default: as trained, or 8)")
    add_batches(parser, 8)
    return parser


def _evaluate(values: dict[str, Any], command: str) -> Result:
    from vmm.evaluation.classification.options import Options
    from vmm.evaluation.classification.run import evaluate

    return evaluate(Options(**values), command)


def main(args: Sequence[str] | None = None, prog: str = "vmm eval classification") -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command(_parser(prog), _evaluate, args)
