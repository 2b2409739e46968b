"""Choose how much the matching head counts in re-ranking, on validation clips.

    vmm eval match-weight --run RUN

``vmm fit`` does so by itself where it has trained a matching head. This command does it for
imported checkpoints, for other clips than those of the recipe, and anew. The weight is kept in the
run's ``match_weight.json``; evaluation and ``vmm export`` take it from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.recipe_files import refuse_no_run
from vmm.text_output import number_of, say


def main(args: Sequence[str] | None = None, prog: str = "vmm eval match-weight") -> int:
    """Choose and keep it, and print what other weights gave; returns the exit status."""
    parser = CommandParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="run directory of `vmm fit`, stage 2, or an import")
    add("--checkpoint", default="best", help="best, last or a path (default: best)")
    add("--shards", help="pattern of the clips to choose on (default: the run's validation shards)")
    add("--clips", type=whole(1), default=256, help="look at so many (default: %(default)s)")
    add("--device", help="where to compute (default: cuda if there is one, else cpu)")
    add("--num-workers", type=whole(0, 1024), default=0, help="decoding processes")
    options = parser.parse_args(args)

    def choose() -> int:
        refuse_no_run(options.run)
        import torch

        from vmm.evaluation.retrieval.mixing import choose_weight
        from vmm.models.match_weight import FILE_NAME

        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        choice = choose_weight(
            options.run, options.checkpoint, device, options.shards, options.num_workers,
            options.clips,
        )  # fmt: skip
        for weight, rank in choice.curve.items():
            mark = "  <- chosen" if weight == choice.weight else ""
            say(f"weight {weight:5.2f}: mean reciprocal rank {rank:.3f}{mark}")
        say(f"chosen on {number_of(choice.clips, 'clip')} and kept in {options.run / FILE_NAME}")
        return 0

    return run_to_status(prog, choose)
