"""Multiple-choice questions about long videos, with everything an accuracy must be compared with.

    vmm eval long-video-qa --run RUN --dataset egoschema --annotations questions.json \
        --media videos/ --fps 1
    vmm eval long-video-qa --model open_clip:ViT-B-32:openai --num-frames 16 --dataset ...

Every option becomes a text, and the video's best text is the answer: by the cosine (similarity),
by the matching head, and by the published mixture of both. A video is seen whole, in one pass of
any length, or in windows. Beside it stand blind answers, a blank video, frames in random order,
the longest and the shortest option, the most frequent position and chance, with errors clustered
by video. An evaluation that was stopped goes on from the videos it had scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vmm.command_line import positive, whole
from vmm.evaluation.common.command import add_coverage, add_model, new_parser, run_command
from vmm.evaluation.long_video_qa.protocols import SETS, Prompt
from vmm.evaluation.long_video_qa.viewing import Aggregate

if TYPE_CHECKING:
    from vmm.evaluation.common.results import Result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = new_parser(prog, __doc__, "run directory of `vmm fit`, stage 2")
    add_model(parser)
    add = parser.add_argument
    add("--dataset", choices=SETS, required=True, help="whose questions")
    add("--annotations", type=Path, required=True, help="official file of the questions")
    add("--media", required=True, help="folder of the videos, or their shards")
    add("--ids", type=Path, help="list of the questions to keep")
    add("--prompt", choices=get_args(Prompt),
        help="text of an option: question and option joined, the question with \"Is it "
        "'option'\", the option alone, or the file's own statement (default: that, or "
        "joined)")  # fmt: skip
    add(
        "--num-frames",
        type=whole(1),
        help="frames over the whole video (default: as trained, or 8)",
    )
    add("--fps", type=positive, help="frames per second instead, however many these are")
    add("--window", type=whole(1), help="see so many frames at a time (default: all in one pass)")
    add("--aggregate", choices=get_args(Aggregate), default="mean",
        help="how windows become one score: mean, max or log-sum-exp of their scores, or the mean "
        "of their embeddings (default: mean)")  # fmt: skip
    add_coverage(parser, "questions about unreadable videos are wrong (strict), or dropped")
    return parser


def _evaluate(values: dict[str, Any], command: str) -> Result:
    from vmm.evaluation.long_video_qa.options import Options
    from vmm.evaluation.long_video_qa.run import evaluate

    return evaluate(Options(**values), command)


def main(args: Sequence[str] | None = None, prog: str = "vmm eval long-video-qa") -> int:
    """Run the evaluation and print its tables; status 2 for a mistake in what it was given."""
    return run_command(_parser(prog), _evaluate, args)
