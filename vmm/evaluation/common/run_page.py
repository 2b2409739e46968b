"""``report.html`` of a run: what it is, what became of it, its curves in words, what comes next.

Made of the run's folder alone, so that it can be made of any run at any time.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vmm.evaluation.common.curves import Curve, levels, panels, read_curves
from vmm.evaluation.common.page import render
from vmm.models.recipe_nodes import init_args_of
from vmm.runs import RECORD, find_checkpoint, kind_of, read_config
from vmm.text_output import number_of, visible
from vmm.whole import whole_file

FILE_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
# Of the many validation curves, those that say how it went.
_HIDDEN = ("recall_5", "recall_10", "recall_mean", "mean_rank", "median_rank", "ties")
_SPEED = {
    "speed/clips_per_s": ("clips per second, of all processes", "{:,.1f}"),
    "speed/step_ms": ("milliseconds of a batch", "{:,.0f}"),
    "speed/waiting": ("share of the time that it waited for data", "{:.0%}"),
    "memory/rss_gib": ("memory of a process, GiB", "{:,.2f}"),
    "memory/cuda_peak_gib": ("memory of a GPU, GiB", "{:,.2f}"),
}
_ENDS = {
    "done": "It is finished",
    "running": "It is running, or was killed and could say nothing",
    "stopped": "It was stopped",
    "preempted": "It was preempted",
}


def write_run_page(
    out: Path, runs: Sequence[tuple[str, Path]], title: str | None = None
) -> list[list[str]]:
    """Write the page of runs.

    Args:
        out: The HTML file to write.
        runs: Pairs of a name and a run directory.
        title: Heading of the page; None = the name of the run.

    Returns:
        What the page begins with, as rows of a name, a fact and its value, header first.

    Raises:
        ValueError: If a folder is none of a run, or damaged.
    """
    described = [_describe(name, run) for name, run in runs]
    title = title or f"Training of {', '.join(name for name, _ in runs)}"
    page = render("run.html.j2", _TEMPLATES, title=title, runs=described)
    with whole_file(out, durable=False) as file:
        file.write_text(visible(page, lines=True), encoding="utf-8")
    facts = [[run["name"], name, value] for run in described for name, value in run["facts"]]
    return [["run", "", ""], *facts]


def training_of(name: str, run: Path) -> dict[str, Any]:
    """Give the curves of a run as ``training.html.j2`` shows them."""
    curves = [curve for curve in read_curves(run / "metrics.csv") if _says_much(curve)]
    return {"name": name, "panels": panels(curves), "levels": levels(curves)}


def _says_much(curve: Curve) -> bool:
    return not (curve.name.startswith("val/") and curve.name.endswith(_HIDDEN))


def _describe(name: str, run: Path) -> dict[str, Any]:
    config = read_config(run)
    has_curves = (run / "metrics.csv").is_file()
    shown = training_of(name, run) if has_curves else {"name": name, "panels": [], "levels": []}
    fast = read_curves(run / "metrics.csv", ("speed", "memory")) if has_curves else []
    typical = {c.name: sorted(c.values)[len(c.values) // 2] for c in fast}
    return shown | {
        "state": _state(run),
        "facts": facts(run, config),
        "commands": next_commands(run, config),
        "speed": [
            (title, form.format(typical[curve]).replace("%", " %"))
            for curve, (title, form) in _SPEED.items()
            if curve in typical
        ],
    }


def _state(run: Path) -> str:
    """Say what became of it."""
    record = _record(run)
    end, step = record["end"], record["step"]
    if end is None:
        return "What became of it is not recorded."
    said = _ENDS.get(end, f"It ended: {end}")
    if end in ("stopped", "preempted"):
        said += f", and goes on with the same command and --resume, from step {step:,}"
    done = f"; {number_of(step, 'step is', 'steps are')} done" if end == "done" else ""
    return f"{said}{done}."


def facts(run: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what a run is and has, as pairs of a name and a value.

    Args:
        run: Its directory.
        config: Its recipe.
    """
    task = init_args_of(config.get("model"))
    encoder = _class_name(task.get("video_encoder"))
    found = [("folder", str(run)), ("task", _class_name(config.get("model")))]
    found += [("video encoder", encoder)] if encoder else []
    if task.get("init_from"):
        found.append(("starts from", str(task["init_from"])))
    if task.get("freeze"):
        found.append(("frozen", str(task["freeze"])))
    data = init_args_of(config.get("data"))
    found += [
        (title, _shards(data[key]))
        for key, title in (
            ("train_videos", "training videos"),
            ("train_images", "training images"),
            ("val_videos", "validation"),
        )
        if data.get(key)
    ]
    return [*found, *(("beware", leak) for leak in _record(run)["leaks"]), *_best(run, config)]


def _record(run: Path) -> dict[str, Any]:
    """Read ``run.json``: ``end``, ``step`` and ``leaks``; nothing of a file that is no record."""
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
        leaks = [leak for leak in record.get("leaks") or [] if isinstance(leak, str)]
        return {"end": str(record["end"]), "step": int(record["step"]), "leaks": leaks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"end": None, "step": 0, "leaks": []}


def _shards(named: Any) -> str:
    """Name shards as a recipe does: patterns, or corpora by name."""
    if isinstance(named, Mapping):
        return "; ".join(f"{name}: {_shards(dict(own)['shards'])}" for name, own in named.items())
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named)


def _class_name(node: Any) -> str:
    path = node.get("class_path") if isinstance(node, Mapping) else None
    return str(path or "").rpartition(".")[2]


def _best(run: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the checkpoint that other commands take, and its numbers."""
    chosen_ones = [p for p in run.glob("checkpoints/*.ckpt") if not p.stem.startswith("last")]
    try:
        path = find_checkpoint(run, "best" if chosen_ones else "last")
    except ValueError:
        return [("checkpoint", "none was saved")]
    chosen = config.get("checkpoint") or {}
    watched = chosen.get("monitor")
    curves = {}
    if (run / "metrics.csv").is_file():
        curves = {curve.name: curve for curve in read_curves(run / "metrics.csv")}
    why = "the newest; checkpoint.monitor, which is not set, names a curve to choose the best by"
    if watched:
        never = f"the newest: {watched} was never measured"
        why = f"best {watched}" if watched in curves else never
    why = why if chosen_ones else "of its end: nothing was validated"
    found = [("checkpoint", f"{path} ({why})")]
    place = -1
    if watched in curves:
        values = curves[watched].values
        extreme = max(values) if chosen.get("mode") == "max" else min(values)
        place = values.index(extreme)
    shown = [c for c in curves.values() if c.name.startswith("val/") and _says_much(c)]
    numbers = [f"{c.name} {c.values[place]:.4g}" for c in shown if len(c.values) > max(place, 0)]
    return [*found, ("its numbers", ", ".join(numbers) or "nothing was validated")]


def next_commands(run: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what can be done with a run, as pairs of what it does and the command.

    Args:
        run: Its directory.
        config: Its recipe.
    """
    if not any(run.glob("checkpoints/*.ckpt")):
        return []
    kind, data = kind_of(config), init_args_of(config.get("data"))
    shards = data.get("test_videos") or data.get("test_images")
    shards = shards[0] if isinstance(shards, list) and shards else shards
    return commands_after(
        "" if kind is None else kind.model.__name__,
        run,
        shards if isinstance(shards, str) else "TEST-*.tar",
    )


def commands_after(model: str, run: Path, shards: str) -> list[tuple[str, str]]:
    """List what can be done after training, as pairs of what it does and the command.

    Args:
        model: Name of the class of what is trained; see ``vmm.runs.TASKS``.
        run: Directory of the run, which all that is made goes into: the next run has another.
        shards: To measure on.
    """
    own = shlex.quote(str(run))
    out, encoder, index, classifier = (
        shlex.quote(str(run / name)) for name in ("after", "encoder", "index", "classifier")
    )
    shown = f"--run {own} --shards {shlex.quote(shards)} --out {out} --name after"
    if model == "VideoTextModel":
        return [
            ("Measure retrieval on test shards", f"vmm eval retrieval {shown}"),
            ("Export the encoder for apps", f"vmm export {own} {encoder}"),
            ("Index a folder of videos", f"vmm encode FOLDER -o {index} --encoder {encoder}"),
            ("Search it", f'vmm search {index} "WHAT TO FIND"'),
        ]
    if model == "VideoClassifier":
        return [
            ("Measure the accuracy on test shards", f"vmm eval classification {shown}"),
            ("Export the classifier", f"vmm export {own} {classifier}"),
        ]
    if model == "AnswerModel":
        return [("Measure the answers on test shards", f"vmm eval open-qa {shown}")]
    if model == "MaskedStudent":
        start = f"--model.init_args.init_from {own}"
        return [("Train with text from here", f"vmm fit -c stage2_vtt.yaml {start}")]
    return []
