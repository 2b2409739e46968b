"""The page of a result of moments: numbers, recall over IoU, and curves with truth and guess."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vmm.data.faults import SampleError
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.frames import read_frames
from vmm.evaluation.common.page import write_accuracy_page
from vmm.evaluation.common.pictures import DPI, WIDE, png, shortened
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.grounding.results import TITLES, GroundingResult
from vmm.pages import data_uri

NOTE = (
    "Percent of sentences, ± one standard error clustered by video: sentences about one video are "
    "found or missed together. R1@0.5: the first window has an IoU of 0.5 or more with a moment; "
    "R5: one of the first five; mIoU: mean IoU of the first; mAP: mean average precision of ten "
    "windows, over IoUs from 0.5 to 0.95. The last lines look at no video, or at its frames in "
    "random order: what they reach says nothing about a model."
)
_OF_HIGHLIGHTS = (
    " Highlights: clips of two seconds that people marked VeryGood, at least Good, or at least "
    "Fair. HIT@1: the most relevant clip is one; HL-mAP: mean average precision of the clips."
)
_EXAMPLES = (
    "Below the recall, a sentence of each of some videos: frames of the whole video; how relevant "
    "the sentence is from second to second; when what it says is seen (true, and shaded); the "
    "first window that was found."
)
_NOTHING = "No moment is public here: there is nothing to measure."
_SHOWN = 8
_TILES, _TILE_SIDE = 8, 48
_TRUE, _FOUND = "#1a7f37", "#bc4c00"
_STYLES: dict[str, tuple[str, Any]] = {
    "head": ("#8250df", "-"), "curve": ("#0969da", "-"), "shuffled": ("#0969da", ":"),
    "prior": ("#57606a", "-"), "whole": ("#57606a", "--"), "centre": ("#57606a", ":"),
}  # fmt: skip


def write_page(
    path: Path, result: GroundingResult, media: AnnotatedClips, clip: ClipSettings
) -> None:
    """Write the page of a result: one file that loads nothing from anywhere.

    Args:
        path: The HTML file.
        result: As it is written.
        media: The videos, for pictures.
        clip: How they are decoded.
    """
    tables = result.tables()
    pictures = {}
    if result.numbers is not None:
        chart = png(recall_chart(result.numbers["recall"]))
        pictures["Recall of the first window over the IoU that is asked for"] = chart
    for number in shown_queries(result):
        query = result.queries[number]
        caption = f"{_state(query)}: {shortened(query['text'], 160)}"
        caption = f"{caption} ({query['key']})" if caption in pictures else caption
        pictures[caption] = png(example(query, _strip(media, query["video"], clip)))
    write_accuracy_page(
        path,
        title=f"{result.name} on {result.data['test_set']}",
        summary=result.numbers["verdict"] if result.numbers else _NOTHING,
        table=tables.pop("Moments", [["sentences", str(len(result.queries))]]),
        note=NOTE + _OF_HIGHLIGHTS * ("Highlights" in tables),
        tables=tables,
        findings=result.findings,
        pictures={title: data_uri("image/png", image) for title, image in pictures.items()},
        about_pictures=_EXAMPLES,
        card=result.card(),
    )


def recall_chart(recall: dict[str, Any]) -> Figure:
    """Draw R@1 over the IoU that is asked for, of methods and controls.

    Args:
        recall: ``iou``, and of each of ``methods`` as many percentages.
    """
    figure = Figure(figsize=(WIDE, 3.9), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    for name, values in recall["methods"].items():
        colour, style = _STYLES[name]
        ax.plot(recall["iou"], values, color=colour, linestyle=style, label=TITLES[name])
    ax.set(xlim=(0, 1), ylim=(0, 102), xlabel="IoU of at least", ylabel="sentences, %")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def shown_queries(result: GroundingResult) -> list[int]:
    """Choose sentences at even distances from the list, of different videos where there are."""
    seen: dict[int, int] = {}
    for number, query in enumerate(result.queries):
        if query["curve"]:
            seen.setdefault(query["video"], number)
    firsts = list(seen.values())
    places = np.linspace(0, len(firsts) - 1, min(_SHOWN, len(firsts)))
    numbers = []
    for turn, place in enumerate(places):
        first = firsts[int(place)]
        own = [
            n for n, q in enumerate(result.queries) if q["video"] == result.queries[first]["video"]
        ]
        numbers.append(own[turn % len(own)])
    return numbers


def example(query: dict[str, Any], strip: np.ndarray | None) -> Figure:
    """Draw a sentence's curve, its moments and the first windows that were found.

    Args:
        query: Of ``queries`` of a result.
        strip: (H, W, 3) uint8 frames of the video side by side; None = no picture.
    """
    figure = Figure(figsize=(WIDE, 2.7), dpi=DPI, layout="constrained")
    rows = figure.subplots(3, 1, height_ratios=[0.9, 2, 0.8], sharex=True)
    end = query["seconds"][-1]
    for ax in rows:
        ax.spines[["top", "right"]].set_visible(False)
    if strip is not None:
        rows[0].imshow(strip, extent=(0, end, 0, 1), aspect="auto")
    rows[0].set_axis_off()
    rows[1].stairs(query["curve"], query["seconds"], color="#0969da", baseline=None)
    rows[1].set_ylabel("relevance", fontsize=8)
    for start, stop in query["moments"]:
        rows[1].axvspan(start, stop, color=_TRUE, alpha=0.15, lw=0)
    _bars(rows[2], [(query["moments"], _TRUE), ([w[:2] for w in query["windows"][:1]], _FOUND)])
    rows[2].set_yticks([0, 1], ["true", "found"])
    rows[2].set(xlim=(0, end), ylim=(1.6, -0.6), xlabel="seconds")
    return figure


def _bars(ax: Axes, lines: Sequence[tuple[Sequence[Sequence[float]], str]]) -> None:
    for row, (spans, colour) in enumerate(lines):
        for start, end in spans:
            ax.barh(row, end - start, left=start, height=0.7, color=colour)


def _state(query: dict[str, Any]) -> str:
    if query["iou"] is None:
        return "Moments not public"
    return f"IoU {query['iou']:.2f}"


def _strip(media: AnnotatedClips, video: int, clip: ClipSettings) -> np.ndarray | None:
    """Give frames of a video in a row, each over its seconds; None if it cannot be read."""
    settings = ClipSettings(_TILES, max(_TILE_SIDE, clip.image_size), decoder=clip.decoder)
    try:
        frames = read_frames(media.film(video), settings, None)
    except (SampleError, OSError):
        return None
    return np.concatenate(list(frames.tiles(_TILES)), axis=1)
