"""mteb's video-text tasks, and its results beside those of vmm.

    vmm eval mteb runs/encoder --tasks MSVDT2VRetrieval MSVDV2TRetrieval --out results
    vmm eval mteb --results T2V.json V2T.json --predictions FOLDER --out results
    vmm eval mteb --retrieval results/retrieval.json --out results

The first runs tasks with an exported encoder: mteb loads the data sets, its results and predictions
are kept in OUT, and both directions of a task become a retrieval.json, which `vmm eval compare` and
`vmm eval report` take. The second does the latter with results of any model. The third writes a
result of vmm as mteb would, or says why mteb measures something else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.text_output import say

if TYPE_CHECKING:
    from vmm.evaluation.leaderboards.mteb_results import TaskFile


def main(args: Sequence[str] | None = None, prog: str = "vmm eval mteb") -> int:
    """Run tasks, or carry results over; status 2 for a mistake in what it was given."""
    parser = CommandParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("encoder", nargs="?", help="encoder folder, or OWNER/NAME on the hub")
    add("--tasks", nargs="+", default=(), help="names of mteb's tasks")
    add("--results", type=Path, nargs="+", default=(), help="result files of mteb")
    add("--predictions", type=Path, help="folder of their predictions")
    add("--retrieval", type=Path, help="a retrieval.json, or its folder")
    add("--out", type=Path, required=True, help="folder to write into")
    add("--num-frames", type=whole(1), help="frames looked at in a clip (default: as trained)")
    add("--batch-size", type=whole(1), default=8, help="default: %(default)s")
    options = parser.parse_args(args)
    given = (options.encoder, options.results, options.retrieval)
    if sum(map(bool, given)) != 1 or bool(options.encoder) != bool(options.tasks):
        parser.error("give an encoder with --tasks, or --results, or --retrieval")
    return run_to_status(prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from vmm.evaluation.leaderboards.mteb_results import TaskFile, mteb_table

    options.out.mkdir(parents=True, exist_ok=True)
    if options.retrieval:
        return _write_as_mteb(options.retrieval, options.out)
    if options.encoder:
        files = _run_tasks(options)
        predictions = options.out / "predictions"
    else:
        files = [TaskFile.read(path) for path in options.results]
        predictions = options.predictions
    say(mteb_table(files), lines=True)
    if predictions is not None:
        _write_pairs(files, predictions, options.out)
    return 0


def _run_tasks(options: argparse.Namespace) -> list[TaskFile]:
    """Run tasks of mteb; give their result files."""
    try:
        import mteb

        from vmm.evaluation.leaderboards.mteb_model import MtebEncoder
    except ModuleNotFoundError as error:
        raise ValueError(
            f"mteb's tasks need the package {error.name!r}; install the extra: "
            'pip install "vmm-video[mteb]"'
        ) from error
    from vmm.evaluation.leaderboards.mteb_results import TaskFile

    try:
        tasks = mteb.get_tasks(tasks=list(options.tasks))
    except (KeyError, ValueError) as error:
        raise ValueError(f"mteb has no such task: {error}") from error
    model = MtebEncoder.from_pretrained(options.encoder, num_frames=options.num_frames)
    bar = sys.stderr.isatty()
    found = mteb.evaluate(
        model,
        tasks,
        cache=None,
        prediction_folder=options.out / "predictions",
        encode_kwargs={"batch_size": options.batch_size, "show_progress_bar": bar},
        show_progress_bar=bar,
    )
    meta = model.mteb_model_meta.to_dict()
    (options.out / "model_meta.json").write_text(json.dumps(meta, default=str), encoding="utf-8")
    paths = []
    for result in found.task_results:
        paths.append(options.out / f"{result.task_name}.json")
        result.to_disk(paths[-1])
    return [TaskFile.read(path) for path in paths]


def _write_pairs(files: Iterable[TaskFile], predictions: Path, out: Path) -> None:
    """Write a retrieval.json for every two directions of a task."""
    from vmm.evaluation.leaderboards.mteb_results import from_mteb

    pairs: dict[str, list[TaskFile]] = {}
    for file in files:
        if file.direction is not None:
            name = file.task.replace(file.direction.upper(), "", 1)
            pairs.setdefault(name, []).append(file)
    for name, pair in pairs.items():
        if len(pair) == 2:
            folder = out / name
            folder.mkdir(exist_ok=True)
            path = from_mteb(pair, predictions).write(folder)
            say(f"wrote {path}; `vmm eval report` and `vmm eval compare` take it")


def _write_as_mteb(path: Path, out: Path) -> int:
    from vmm.evaluation.leaderboards.mteb_results import to_mteb
    from vmm.evaluation.retrieval.results import DIRECTIONS, RetrievalResult

    result = RetrievalResult.read(path)
    for direction in DIRECTIONS:
        content = to_mteb(result, direction)
        written = out / f"{content['task_name']}.json"
        written.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        say(f"wrote {written}")
    return 0
