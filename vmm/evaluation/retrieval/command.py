"""Zero-shot text-to-video and video-to-text retrieval on a test set.

    vmm eval retrieval --run RUN --shards "data/demo/test-*.tar"
    vmm eval retrieval --run RUN --dataset msrvtt-1ka --annotations FILE --media FOLDER
    vmm eval retrieval --model open_clip:ViT-B-32:openai --shards ...

Every clip and caption is encoded once. The dual encoder scores all pairs in float32, by all frames
as published and by one vector of each clip as apps do; the best ``k`` of every query are re-ranked,
in each direction for itself, by the mixture of that vector and the matching head, and by the head
alone as published. A clip that cannot be read stays in the gallery and its queries count as misses.
Samples that carry a ``reversed_caption`` are also asked which of the two captions fits, which only
a model that sees the order of frames can tell. An evaluation that was stopped goes on from the
clips it had encoded; under ``torchrun`` several processes share the work.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.command_line import whole
from vmm.evaluation.common.command import (
    add_batches,
    add_coverage,
    add_data,
    add_model,
    new_parser,
    run_command,
)
from vmm.evaluation.retrieval.protocols import PROTOCOLS
from vmm.reranking import CANDIDATES

if TYPE_CHECKING:
    from vmm.evaluation.common.results import Result


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = new_parser(prog, __doc__, "run directory of `vmm fit`, stage 2")
    add_model(parser)
    add_data(parser, "pattern of the test shards", list(PROTOCOLS))
    add = parser.add_argument
    add("--ids", type=Path, help="list of the ids to keep of the annotations")
    add("--train-ids", type=Path, help="ids or annotations of what the model was trained on")
    add("--frame-order", choices=("forward", "reversed"), default="forward")
    how_many = "candidates to re-rank per query, all if there are fewer (default: %(default)s)"
    add("--k", type=whole(1), default=CANDIDATES, help=how_many)
    add("--no-rerank", action="store_true", help="dual encoder only")
    add("--dsl", action="store_true", dest="dual_softmax",
        help="also with dual softmax, under its own name")  # fmt: skip
    add_coverage(parser, "queries of unreadable clips are misses (strict), or both are dropped")
    add("--num-frames", type=whole(1), help="frames per clip (default: as trained, or 8)")
    add_batches(parser, 32)
    return parser


def _join_processes(device: str) -> str:
    """Join the processes of ``torchrun``, if it started this one; give the device to use."""
    import torch
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return device


def _evaluate(values: dict[str, Any], command: str) -> Result | None:
    """Evaluate, together with the other processes of ``torchrun`` if there are any."""
    import torch.distributed as dist

    from vmm.evaluation.retrieval.options import Options
    from vmm.evaluation.retrieval.run import evaluate

    if values.pop("no_rerank"):
        values["k"] = None
    try:
        values["device"] = _join_processes(values["device"])
        return evaluate(Options(**values), command)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(args: Sequence[str] | None = None, prog: str = "vmm eval retrieval") -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    return run_command(_parser(prog), _evaluate, args)
