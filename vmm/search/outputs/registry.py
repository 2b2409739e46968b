"""All files that hits are written to: one line for each, chosen by the end of the name.

A new one is a function ``write(results, out)`` in a file beside this one, and a line in
``OUTPUTS``. It returns sentences: what it wrote, and what it left out and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.search.kinds import Kind, kind_of

if TYPE_CHECKING:  # so that names can be told before torch is loaded
    from vmm.search.results import Result

    Write = Callable[[Sequence[Result], Path], list[str]]

_HERE = "vmm.search.outputs"
OUTPUTS = {
    ".json": Kind("rows", f"{_HERE}.tables:write_json"),
    ".csv": Kind("rows", f"{_HERE}.tables:write_csv"),
    ".edl": Kind("edit decision list, CMX 3600", f"{_HERE}.edl:write"),
    ".otio": Kind("timeline, OpenTimelineIO", f"{_HERE}.otio:write", "otio"),
    ".vtt": Kind("chapters of each video, WebVTT", f"{_HERE}.webvtt:write"),
    "/": Kind("small films, and hits.json", f"{_HERE}.clips:write"),
}


def load_output(out: str) -> Write:
    """Return what writes hits to a file or folder, before there are any.

    Args:
        out: Its name.

    Raises:
        ValueError: If no kind is called so, or its library is not installed.
    """
    return kind_of(OUTPUTS, out, "--out").load(f"--out {out}")
