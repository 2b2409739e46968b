"""Published classification sets: how each is measured, and what others reach on it.

VideoMamba (arXiv 2403.06977), tables 2 to 6. The annotation files are read by
``vmm.data.annotations``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmm.data.annotations.class_folders import CLASS_FOLDERS

if TYPE_CHECKING:  # loads torch, which a command's help must not
    from vmm.data.sampling import Sampling


class ClassProtocol(NamedTuple):
    """A classification set as papers use it."""

    title: str
    dataset: str
    """Name in ``vmm.data.annotations.registry.DATASETS``."""
    splits: tuple[str, ...]
    """What official files that hold several splits may call the one to measure on."""
    classes: int | None
    """None where releases differ, and for a number to predict."""
    clips: int
    """Published clips per video."""
    crops: int = 3
    """Published crops per clip."""
    size: int | None = None
    """Videos of the authors' lists; None where releases differ."""
    paper_size: int | None = None
    """Videos that table VIII counts, where that is another number."""
    sampling: Sampling = "random_finetune"
    """How published numbers choose frames."""
    is_regression: bool = False
    """Whether a number is predicted, measured by its mean squared error."""


def _lvu(title: str, classes: int | None, size: int, paper_size: int) -> ClassProtocol:
    return ClassProtocol(
        f"LVU {title}", "lvu", ("test",), classes, 4, size=size, paper_size=paper_size,
        is_regression=classes is None,
    )  # fmt: skip


CLASS_PROTOCOLS: dict[str, ClassProtocol] = {
    "k400": ClassProtocol("K400", "kinetics", ("val", "validate", "validation"), 400, 4),
    "ssv2": ClassProtocol(
        "SSv2", "ssv2-template", ("validation",), 174, 2, size=24777, sampling="random_ssv2"
    ),
    "breakfast": ClassProtocol(
        "Breakfast", "breakfast", ("test",), 10, 4, size=355, paper_size=410
    ),
    "coin": ClassProtocol("COIN", "coin", ("test",), 180, 10, size=2797, paper_size=2796),
    "lvu-relationship": _lvu("relationship", 4, 42, 41),
    "lvu-way-speaking": _lvu("way of speaking", 5, 201, 188),
    "lvu-scene": _lvu("scene", 6, 86, 81),
    "lvu-director": _lvu("director", 10, 107, 107),
    "lvu-genre": _lvu("genre", 4, 647, 584),
    "lvu-writer": _lvu("writer", 10, 168, 168),
    "lvu-year": _lvu("year", 9, 143, 141),
    "lvu-like-ratio": _lvu("like ratio", None, 140, 139),
    "lvu-view-count": _lvu("view count", None, 126, 102),
    "imagenet": ClassProtocol("ImageNet", CLASS_FOLDERS, (), 1000, 1, 1, size=50000),
    CLASS_FOLDERS: ClassProtocol("folders of classes", CLASS_FOLDERS, (), None, 1, 1),
}
"""Name on the command line -> protocol."""


def class_protocol(name: str) -> ClassProtocol:
    """Find a set by its name on the command line.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in CLASS_PROTOCOLS:
        known = ", ".join(CLASS_PROTOCOLS)
        raise ValueError(f"there is no classification set {name!r}; known are {known}")
    return CLASS_PROTOCOLS[name]


class PublishedAccuracy(NamedTuple):
    """What a trained classifier reaches."""

    model: str
    value: float
    """Top-1 in percent; of a number to predict, the mean squared error."""


_K400_SSV2 = {
    "K400": (
        ("VideoMamba-Ti, 8 frames", 76.9), ("VideoMamba-Ti, 64 frames", 79.6),
        ("VideoMamba-S, 8 frames", 79.3), ("VideoMamba-S, 64 frames", 81.8),
        ("VideoMamba-M, 8 frames", 80.6), ("VideoMamba-M, 64 frames", 82.8),
        ("VideoMamba-M, masked pretraining, 8 frames", 82.0),
        ("VideoMamba-M, masked pretraining, 64 frames", 84.3),
    ),
    "SSv2": (
        ("VideoMamba-Ti, 8 frames", 65.1), ("VideoMamba-S, 8 frames", 66.6),
        ("VideoMamba-M, 8 frames", 67.3), ("VideoMamba-M, 16 frames", 68.3),
        ("VideoMamba-M, masked pretraining, 8 frames", 70.2),
        ("VideoMamba-M, masked pretraining, 16 frames", 71.0),
    ),
}  # fmt: skip
_IMAGENET = (
    ("VideoMamba-Ti, 224 pixels", 76.9), ("VideoMamba-Ti, 576 pixels", 79.6),
    ("VideoMamba-S, 224 pixels", 81.2), ("VideoMamba-S, 576 pixels", 83.5),
    ("VideoMamba-M, self-distillation, 224 pixels", 82.8),
    ("VideoMamba-M, self-distillation, 576 pixels", 84.0),
    ("VideoMamba-B, self-distillation, 224 pixels", 82.7),
)  # fmt: skip
_LONG = {
    "Breakfast": (94.3, 97.4, 95.8, 97.9),
    "COIN": (87.0, 88.7, 89.5, 90.4),
}
_LVU = {
    "relationship": 62.5, "way of speaking": 40.43, "scene": 70.37, "director": 67.29,
    "genre": 65.24, "writer": 52.98, "year": 48.23, "like ratio": 0.26, "view count": 2.9,
}  # fmt: skip


def published_accuracy(title: str) -> list[PublishedAccuracy]:
    """List what trained classifiers reach, by a protocol's title; empty where nothing is known."""
    sizes = ("Ti", "S", "M", "M, masked pretraining")
    rows = [*(_IMAGENET if title == "ImageNet" else _K400_SSV2.get(title, ()))]
    rows += [
        (f"VideoMamba-{size}, best of 32 and 64 frames", value)
        for size, value in zip(sizes, _LONG.get(title, ()), strict=False)
    ]
    if title.startswith("LVU ") and title[4:] in _LVU:
        rows.append(("VideoMamba-Ti, 32 frames", _LVU[title[4:]]))
    return [PublishedAccuracy(*row) for row in rows]
