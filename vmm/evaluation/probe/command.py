"""Probes of frozen features: what is an encoder worth before anybody fine-tunes it?

    vmm eval probe --run RUN --train-shards 'data/motions/train-*.tar' \
        --shards 'data/motions/test-*.tar' --class-field caption
    vmm eval probe --run RUN --dataset ssv2 --train-annotations train.json \
        --annotations validation.json --media ssv2/
    vmm eval probe --model open_clip:ViT-B-32:openai --dataset class-folders \
        --train-annotations imagenet/train --annotations imagenet/val

A linear, a nearest-neighbour and an attentive probe learn from the features of labelled clips or
stills, with settings chosen on a part of these, and are tested on others. Beside them: the same
encoder with random weights, and the most frequent class. A run may be of any task. Every clip is
encoded once; a probing that was stopped goes on from there.
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
    parser = new_parser(prog, __doc__, "run of any task, or an import")
    add_model(parser)
    classes = [name for name, protocol in CLASS_PROTOCOLS.items() if not protocol.is_regression]
    add_data(parser, "pattern of the shards to test on", classes)
    add = parser.add_argument
    add("--train-shards", help="pattern of the shards to learn from")
    add("--train-annotations", type=Path, help="official file to learn from (default: that of "
        "--annotations, if it says which clips are for training)")  # fmt: skip
    add("--train-media", help="folder of its media, or its shards (default: --media)")
    add("--class-field", help="field of the JSON in shards (default: as trained, or label)")
    add("--probe", action="append", dest="probes", choices=("linear", "knn", "attentive"),
        help="repeatable (default: all three)")  # fmt: skip
    add("--no-control", action="store_false", dest="control",
        help="leave the encoder with random weights out")  # fmt: skip
    add("--token-grid", type=whole(0), default=2, metavar="N",
        help="the attentive probe reads means of N x N regions of each frame (default: 2); 0 = all "
        "tokens")  # fmt: skip
    add("--seed", type=whole(0), default=0, help="of random weights and probes (default: 0)")
    add_coverage(parser, "unreadable test clips are wrong (strict), or dropped")
    add("--num-frames", type=whole(1), help="frames per clip (default: as trained, or 8)")
    add_batches(parser, 8)
    return parser


def _evaluate(values: dict[str, Any], command: str) -> Result:
    from vmm.evaluation.probe.options import Options
    from vmm.evaluation.probe.run import evaluate

    return evaluate(Options(**values), command)


def main(args: Sequence[str] | None = None, prog: str = "vmm eval probe") -> int:
    """Run the probes and print their table; status 2 for a mistake in what they were given."""
    return run_command(_parser(prog), _evaluate, args)
