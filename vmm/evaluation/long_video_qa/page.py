"""The page of a question-answering result, and a picture of every question."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vmm.data.faults import SampleError
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.frames import read_frames
from vmm.evaluation.common.page import render
from vmm.evaluation.common.sources import AnnotatedClips
from vmm.evaluation.long_video_qa.measure import METHODS
from vmm.evaluation.long_video_qa.results import QaResult, accuracy_rows, class_rows
from vmm.evaluation.long_video_qa.timeline import TEMPLATES, axis, timeline_svg
from vmm.pages import data_uri
from vmm.text_output import write_text

_NOTHING = "No answer is public here: there is nothing to measure."
_SHOWN_PER_KIND = 6
_TILES, _TILE_SIDE = 12, 48


def write_timelines(out: Path, result: QaResult, media: AnnotatedClips, clip: ClipSettings) -> None:
    """Write ``timelines/NUMBER.svg`` for every question, and frames of the videos on the page.

    Args:
        out: Existing folder; old pictures in it are removed.
        result: As it is written.
        media: The videos.
        clip: How they are decoded.
    """
    folder = out / "timelines"
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.svg"), *folder.glob("*.jpg")):
        old.unlink()
    for number, question in enumerate(result.questions):
        write_text(folder / f"{number:05d}.svg", timeline_svg(question))
    for video in sorted({result.questions[n]["video"] for n in shown_questions(result)}):
        strip = _strip(media, video, clip)
        if strip is not None:
            (folder / f"video-{video:05d}.jpg").write_bytes(strip)


def shown_questions(result: QaResult) -> list[int]:
    """Choose the questions that the page shows: of each type some, at even distances."""
    of_kind: dict[str, list[int]] = defaultdict(list)
    for number, question in enumerate(result.questions):
        of_kind[question["kind"]].append(number)
    chosen: list[int] = []
    for _, numbers in sorted(of_kind.items()):
        places = np.linspace(0, len(numbers) - 1, min(_SHOWN_PER_KIND, len(numbers)))
        chosen += [numbers[int(place)] for place in places]
    return chosen


def write_page(path: Path, result: QaResult, folder: Path) -> None:
    """Write the page: one file that loads nothing from anywhere.

    Args:
        path: The HTML file.
        result: The content of ``qa.json``.
        folder: Where ``timelines`` is.
    """
    numbers = result.numbers
    page = render(
        "qa.html.j2",
        TEMPLATES,
        title=f"{result.name} on {result.data['test_set']}",
        verdict=numbers["verdict"] if numbers else _NOTHING,
        table=accuracy_rows(numbers) if numbers else [],
        tables=[
            (title, class_rows(numbers[breakdown]))
            for title, breakdown in (("By type", "by_type"), ("By length", "by_duration"))
            if numbers
        ],
        mean=(
            result.data["mean_over_types"] or "Mean over types",
            numbers["mean_over_types"] if numbers else None,
        ),
        findings=result.findings,
        method=METHODS[numbers["headline"]] if numbers else "",
        examples=[_example(result.questions[n], n, folder) for n in shown_questions(result)],
        number=len(result.questions),
        card=result.card(),
    )
    write_text(path, page)


def _example(question: dict[str, Any], number: int, folder: Path) -> dict[str, Any]:
    strip = folder / "timelines" / f"video-{int(question['video']):05d}.jpg"
    chosen, answer = question["chosen"], question["answer"]
    left, width = axis(question)
    return {
        "left": f"{100 * left:.3f}%",
        "width": f"{100 * width:.3f}%",
        "kind": question["kind"],
        "question": question["question"],
        "state": "the video cannot be read" if chosen is None
        else "answer not public" if answer is None
        else "right" if chosen == answer
        else "wrong",
        "picture": data_uri("image/svg+xml", _readable(timeline_svg(question)).encode()),
        "strip": data_uri("image/jpeg", strip.read_bytes()) if strip.is_file() else None,
        "number": f"{number:05d}",
    }  # fmt: skip


def _readable(svg: str) -> str:
    """Give an SVG the colour of text on white paper: in an image it inherits none."""
    return re.sub(r"<svg ", '<svg color="#1f2328" ', svg, count=1)


def _strip(media: AnnotatedClips, video: int, clip: ClipSettings) -> bytes | None:
    """Draw frames of a video in a row, each over its seconds; None if it cannot be read."""
    settings = ClipSettings(_TILES, max(_TILE_SIDE, clip.image_size), decoder=clip.decoder)
    try:
        frames = read_frames(media.film(video), settings, None)
    except (SampleError, OSError):
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames.tiles(_TILES)), axis=1)).save(
        buffer, "JPEG", quality=85
    )
    return buffer.getvalue()
