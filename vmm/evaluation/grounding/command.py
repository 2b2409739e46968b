"""When in a video is what a sentence says? Moments and highlights, and what guessing reaches.

    vmm eval grounding --run RUN --dataset charades-sta --annotations charades_sta_test.txt \
        --media videos/
    vmm eval grounding --run RUN --dataset qvhighlights --annotations highlight_val_release.jsonl \
        --media videos/ --train-annotations highlight_train_release.jsonl --train-media videos/ \
        --head heads/qv

Windows come from the curve of a sentence's relevance over a video's frames; with --head also from a
small head, which is trained on the training split where there is none yet. Beside them stand the
middle half, the whole video, where training moments lie, and frames in random order, with errors
clustered by video. An evaluation that was stopped goes on from the videos it had scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.command_line import positive, whole
from vmm.evaluation.common.command import add_coverage, add_model, new_parser, run_command
from vmm.evaluation.grounding.protocols import SETS

if TYPE_CHECKING:
    from vmm.evaluation.common.results import Result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = new_parser(prog, __doc__, "run directory of `vmm fit`, stage 2")
    add_model(parser)
    add = parser.add_argument
    add("--dataset", choices=SETS, required=True, help="whose sentences")
    add("--annotations", type=Path, required=True, help="official file of the moments")
    add("--media", required=True, help="folder of the videos, or their shards")
    add("--ids", type=Path, help="list of the sentences or videos to keep")
    add("--fps", type=positive, help="frames per second (default: 1)")
    add("--num-frames", type=whole(1), help="frames over the whole video instead")
    add("--window", type=whole(1), help="see so many frames at a time (default: all in one pass)")
    add("--train-annotations", type=Path, help="the training split's: where its moments lie is "
        "a control, and a head learns from them")  # fmt: skip
    add("--train-media", help="the training split's videos, to train a head")
    add("--head", type=Path, help="folder of a trained head; where there is none, one is trained")
    add_coverage(parser, "sentences about unreadable videos are misses (strict), or dropped")
    return parser


def _evaluate(values: dict[str, Any], command: str) -> Result:
    from vmm.evaluation.grounding.options import Options
    from vmm.evaluation.grounding.run import evaluate

    return evaluate(Options(**values), command)


def main(args: Sequence[str] | None = None, prog: str = "vmm eval grounding") -> int:
    """Run the evaluation and print its tables; status 2 for a mistake in what it was given."""
    return run_command(_parser(prog), _evaluate, args)
