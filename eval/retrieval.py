"""Zero-shot text-to-video and video-to-text retrieval on a test split.

``python -m eval.retrieval --run RUN --shards "data/demo/test-{000000..000000}.tar"``

Every clip and caption is encoded once; the dual encoder scores all pairs in float32 and the
matching head re-orders the best ``k`` of every query, in each direction for itself. A clip that
cannot be read stays in the gallery and its queries count as misses. Samples that carry a
``reversed_caption`` are also asked which of the two captions fits, which only a model that sees
the order of frames can tell.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from eval import results
from eval.evaluation import Evaluation, evaluate
from eval.showcase import find_examples, write_showcase
from vmm import __version__
from vmm.data.shards import EvaluationClips
from vmm.export.run import Run, load_run
from vmm.ops.cpu_setup import tune_cpu

logger = logging.getLogger(__name__)


def result_of(
    evaluation: Evaluation, run: Run, dataset: EvaluationClips, settings: dict[str, Any]
) -> dict[str, Any]:
    """Collect everything that ``retrieval.json`` holds but the examples; see ``eval.results``."""
    problems = Counter(clip.problem for clip in evaluation.clips if clip.problem is not None)
    listed, unreadable = len(evaluation.clips), problems.total()
    return {
        "schema": results.SCHEMA,
        "model": {
            "encoder": type(run.model.video_encoder).__name__,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "checkpoint": run.checkpoint.name,
            "sha256": run.sha256,
        },
        "data": {
            "shards": [Path(shard).name for shard in dataset.shards],
            "clips": {
                "listed": listed,
                "readable": listed - unreadable,
                "unreadable": unreadable,
                "problems": dict(problems),
            },
            "captions": len(evaluation.captions),
        },
        "settings": settings,
        **evaluation.numbers,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "av", "numpy")},
            "vmm": __version__,
        },
    }


def run_retrieval(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Evaluate as the command line asks, write the result files, and give the result.

    Raises:
        ValueError: If the run or the shards cannot be used.
    """
    run = load_run(options.run, options.checkpoint)
    clip = replace(run.clip, num_frames=options.num_frames or run.clip.num_frames)
    dataset = EvaluationClips(options.shards, clip, options.frame_order)
    if options.device == "cpu":
        for sentence in tune_cpu().values():
            logger.info(sentence)
    model = run.model.to(options.device)
    k = None if options.no_rerank else options.k
    evaluation = evaluate(model, dataset, k, options.batch_size, options.num_workers)
    settings = {
        "frame_order": options.frame_order,
        "num_frames": clip.num_frames,
        "image_size": clip.image_size,
        "k": k,
        "batch_size": options.batch_size,
        "device": options.device,
        "precision": "float32",
    }
    name = options.name or type(model.video_encoder).__name__
    result = {"name": name, "command": command, **result_of(evaluation, run, dataset, settings)}

    out: Path = options.out or options.run / f"retrieval_{options.frame_order}"
    out.mkdir(parents=True, exist_ok=True)
    keys = [clip.key for clip in evaluation.clips]
    examples = find_examples(evaluation.captions, keys, evaluation.owner, evaluation.scores)
    mean, std = torch.tensor(clip.mean), torch.tensor(clip.std)

    def frames_of(number: int) -> npt.NDArray[np.uint8]:
        video = dataset[number].video
        assert video is not None  # find_examples lists readable clips only
        pixels = video.permute(0, 2, 3, 1) * std + mean
        frames: npt.NDArray[np.uint8] = (pixels.clamp(0, 1) * 255).round().byte().numpy()
        return frames

    title = f"{name}: text-to-video, frames {options.frame_order}, best three clips per caption"
    result["examples"] = write_showcase(out, examples, frames_of, dataset.media, title)
    (out / results.FILE_NAME).write_text(json.dumps(result, indent=1, ensure_ascii=False))
    logger.info("wrote %s and retrieval.png", out / results.FILE_NAME)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, help="run directory of `vmm fit`, stage 2")
    add("--checkpoint", default="best", help="best, last or a path (default: best)")
    add("--shards", required=True, help="pattern of the test shards")
    add("--frame-order", choices=("forward", "reversed"), default="forward")
    add("--k", type=int, default=128, help="candidates to re-rank per query (default: 128)")
    add("--no-rerank", action="store_true", help="dual encoder only")
    add("--num-frames", type=int, help="frames per clip (default: as trained)")
    add("--batch-size", type=int, default=32)
    add("--num-workers", type=int, default=2, help="decoding processes (default: 2)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--out", type=Path, help="folder for the results (default: inside the run)")
    add("--name", help="name of the result (default: the encoder's)")
    return parser


def _portable(argument: str) -> str:
    """Rewrite an absolute path of this machine relative to here, or as its last part."""
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        here = Path.cwd()
        value = str(path.relative_to(here)) if path.is_relative_to(here) else path.name
    return option + equals + value


def main(args: Sequence[str] | None = None) -> int:
    """Run the evaluation and print its table; status 2 for a mistake in what it was given."""
    arguments = sys.argv[1:] if args is None else list(args)
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = shlex.join(["python", "-m", "eval.retrieval", *map(_portable, arguments)])
    try:
        result = run_retrieval(options, command)
    except ValueError as error:
        print(f"eval.retrieval: error: {error}", file=sys.stderr)
        return 2
    print(results.retrieval_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
