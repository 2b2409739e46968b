"""Where published numbers come from."""

from __future__ import annotations

_PAPERS = {
    "VideoMamba": "2403.06977",
    "UMT": "2303.16058",
    "InternVideo2": "2403.15377",
    "PE-core": "2504.13181",
}
"""How the names of models begin -> number on arXiv of the paper that has them."""

ADDRESS = "https://arxiv.org/abs/"


def source_of(model: str) -> tuple[str, str]:
    """Give title and address of the paper that reports a model; both empty if it is not known."""
    for name, number in _PAPERS.items():
        if model.startswith(name):
            return f"arXiv {number}", ADDRESS + number
    return "", ""
