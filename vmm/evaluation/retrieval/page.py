"""One page of everything a set of runs produced: numbers, curves, retrieved clips, provenance.

The page is one file that loads nothing from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmm.evaluation.common.page import render
from vmm.evaluation.common.pictures import png
from vmm.evaluation.common.published import source_of
from vmm.evaluation.common.results import text_table
from vmm.evaluation.common.run_page import training_of, write_run_page
from vmm.evaluation.retrieval.charts import rank_histogram, recall_curves
from vmm.evaluation.retrieval.protocols import published
from vmm.evaluation.retrieval.results import (
    DIRECTIONS,
    MEANING,
    MEANING_AGAIN,
    RetrievalResult,
    comparison_rows,
)
from vmm.pages import data_uri
from vmm.text_output import number_of, write_text

_TEMPLATES = Path(__file__).parent / "templates"
_MAX_CLIP_BYTES = 2 * 2**20
_SHOWN = ("retrieval", "best", "worst")


def build_report(
    out: Path,
    runs: Sequence[tuple[str, Path]],
    results: Sequence[tuple[str, Path]],
    steps: Sequence[dict[str, Any]] = (),
    title: str | None = None,
) -> str:
    """Write the page.

    Args:
        out: The HTML file to write.
        runs: Pairs of a stage's name and its run directory, for the curves.
        results: Pairs of a label and a ``retrieval.json``, or the folder that holds it; the first
            is the headline. Without any the page is about the runs alone.
        steps: How it was made: ``name``, ``command`` and ``seconds`` of each step.
        title: Heading of the page; None = what it is about.

    Returns:
        The table of numbers as text.

    Raises:
        ValueError: If an input is missing or damaged, or there is none.
    """
    if not results and not runs:
        raise ValueError(
            "there is nothing to report; give a --run NAME=DIR or a --result NAME=FILE"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    if not results:
        return text_table(write_run_page(out, runs, title), left=3)
    loaded = [
        (name, RetrievalResult.read(path), path if path.is_dir() else path.parent)
        for name, path in results
    ]
    rows = comparison_rows([(name, result) for name, result, _ in loaded])
    name, headline, folder = loaded[0]
    page = render(
        "report.html.j2",
        _TEMPLATES,
        title=title or "Video-text retrieval",
        summary=_summary(headline),
        meaning=f"{MEANING} {MEANING_AGAIN}",
        table=rows,
        intervals=_intervals(name, headline),
        published=_published(name, headline),
        findings=[(name, found) for name, result, _ in loaded for found in result.findings],
        charts=_charts([(name, result) for name, result, _ in loaded], folder),
        trainings=[training_of(name, run) for name, run in runs],
        results=[_describe(name, result) for name, result, _ in loaded],
        examples=_examples(headline.examples, folder),
        extremes={
            "best": _examples(headline.best, folder),
            "worst": _examples(headline.worst, folder),
        },
        pictures={kind: _picture(folder / f"{kind}.png") for kind in _SHOWN},
        steps=steps,
        card=headline.card(),
    )
    write_text(out, page)
    return text_table(rows, left=2)


def _summary(result: RetrievalResult) -> str:
    data = result.data
    return (
        f"{number_of(data['captions'], 'caption')} and "
        f"{number_of(data['clips']['listed'], 'clip')} of "
        f"{', '.join(data['files'])}; "
        f"{result.settings['num_frames']} frames per clip."
    )


def _intervals(name: str, result: RetrievalResult) -> list[str]:
    """Say how sure the headline's R@1 are."""
    lines = []
    for scores in result.kinds():
        t2v, v2t = (result.interval[scores][f"{d}_recall_1"] for d in ("t2v", "v2t"))
        lines.append(
            f"95 % interval of {name}'s R@1, {result.title(scores)}: text-to-video {t2v[0]:.1f} to "
            f"{t2v[1]:.1f}, video-to-text {v2t[0]:.1f} to {v2t[1]:.1f}."
        )
    return lines


def _published(name: str, result: RetrievalResult) -> list[list[str]]:
    """Put our R@1 above what others publish on the same test set; empty if nothing is known.

    Returns:
        Rows of model, scores, both R@1, title of the source and its address.
    """
    others = published(result.data["test_set"])
    if not others:
        return []
    rows = [
        [
            name,
            result.title(scores),
            *(f"{metrics[f'{d}_recall_1']:.1f}" for d in DIRECTIONS),
            "this result",
            "",
        ]
        for scores, metrics in result.kinds().items()
    ]
    return rows + [
        [
            row.model,
            row.scores,
            f"{row.t2v:.1f}",
            "-" if row.v2t is None else f"{row.v2t:.1f}",
            *source_of(row.model),
        ]
        for row in others
    ]


def _charts(results: Sequence[tuple[str, RetrievalResult]], folder: Path) -> dict[str, list[str]]:
    """Draw what a table cannot show: caption -> pictures."""
    name, headline = results[0]
    drawn = {
        "Recall over the depth": [recall_curves(results, d) for d in DIRECTIONS],
        f"Where the right one stands, {name}": [rank_histogram(headline, d) for d in DIRECTIONS],
    }
    found = {
        caption: [data_uri("image/png", png(figure)) for figure in figures]
        for caption, figures in drawn.items()
    }
    similarity = _picture(folder / "similarity.png")
    if similarity is not None:
        found[f"Similarities, {name}: the diagonal is right"] = [similarity]
    return found


def _describe(name: str, result: RetrievalResult) -> dict[str, Any]:
    """Say in a line where a result comes from."""
    model, clips, settings = result.model, result.data["clips"], result.settings
    return {
        "name": name,
        "encoder": model["encoder"],
        "parameters": f"{model['parameters'] / 1e6:.2f} M",
        "sha256": model["sha256"][:12],
        "clips": clips["listed"],
        "unreadable": clips["unreadable"],
        "frames": f"{settings['num_frames']}, {settings['frame_order']}",
    }


def _examples(examples: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Give examples of a result with their clips embedded."""
    return [
        {
            "caption": example["caption"],
            "rank": example["rank"],
            "results": [
                found
                | {
                    "clip": _clip(folder, found["clip"]),
                    "name": found.get("file") or found.get("key", ""),
                }
                for found in example["results"]
            ],
        }
        for example in examples
    ]


def _picture(path: Path) -> str | None:
    return data_uri("image/png", path.read_bytes()) if path.is_file() else None


def _clip(folder: Path, name: str | None) -> str | None:
    """Embed a clip that ``vmm eval retrieval`` left beside its result."""
    # The result file may come from anywhere: only names of that form are opened.
    if name is None or not re.fullmatch(r"clips/\d{3}\.mp4", name):
        return None
    path = folder / name
    if not path.is_file() or path.stat().st_size > _MAX_CLIP_BYTES:
        return None
    return data_uri("video/mp4", path.read_bytes())
