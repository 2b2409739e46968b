"""Hits as chapters of their videos, WebVTT: in the order of time, named by the query.

Chapters do not overlap, so there is a file for each video and query.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmm.search.outputs.files import safe_name, unique_name, write_texts
from vmm.search.query import Hit
from vmm.search.results import Result
from vmm.search.sources import Source
from vmm.text_output import visible


def write(results: Sequence[Result], out: Path) -> list[str]:
    """Write one file, or one for each video and query.

    Raises:
        ValueError: If there are no hits.
    """
    files: dict[str, str] = {}
    names: set[str] = set()
    for result in results:
        by_video: dict[Source, list[Hit]] = {}
        for hit in result.hits:
            by_video.setdefault(hit.source, []).append(hit)
        for source, hits in by_video.items():
            parts = [result.id] if len(results) > 1 else []
            parts.append(Path(source.member or source.path.name).stem)
            label = unique_name(".".join(map(safe_name, parts)), names)
            files[label] = _chapters(source, result.about, hits)
    if not files:
        raise ValueError("there are no hits to write; try other words")
    return write_texts(out, files)


def _chapters(source: Source, about: str, hits: Sequence[Hit]) -> str:
    parts = ["WEBVTT", f"NOTE {_escaped(str(source))}"]
    for number, hit in enumerate(sorted(hits, key=lambda hit: hit.start), 1):
        times = f"{_time(hit.start)} --> {_time(hit.end)}"
        parts.append(f"{number}\n{times}\n{_escaped(about)} ({hit.similarity:.3f})")
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Escape what would be a tag or an arrow."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(seconds: float) -> str:
    total = round(seconds * 1000)
    minutes, rest = divmod(total, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
