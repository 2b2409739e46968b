"""What is compared with what: studies, their variants, and how each of them is trained.

A training is described by recipes and options of ``vmm fit``, so that anybody can repeat one alone.
Variants of several studies that are the same training are trained once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from vmm.text_output import number_of

Measure = Literal["top_1", "gap"]
"""Accuracy on unseen combinations; or by how much that on the training clips is above it."""

MEASURES: dict[Measure, str] = {
    "top_1": "top-1 on unseen combinations, percent",
    "gap": "top-1 on training clips less that on unseen combinations, percentage points",
}


@dataclass(frozen=True)
class Training:
    """A run of ``vmm fit``.

    Args:
        recipes: A recipe and its overlays, below ``recipes/``, with spaces between.
        options: Setting -> value, beyond the recipes.
        start: Setting -> the training of which it names the run, or a file in it.
        classifies: Whether its run can classify.
        on_training: Whether it also classifies training clips.
    """

    recipes: str
    options: Mapping[str, str] = field(default_factory=dict)
    start: Mapping[str, Start] = field(default_factory=dict)
    classifies: bool = True
    on_training: bool = False

    def key(self) -> str:
        """Tell trainings apart, in 10 digits."""
        start = {name: [other.training.key(), other.file] for name, other in self.start.items()}
        content = [self.recipes, dict(self.options), start, self.on_training]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


class Start(NamedTuple):
    """A training that another one needs."""

    training: Training
    file: str = ""
    """In its run; none: the run itself."""


class Claim(NamedTuple):
    """What a study is expected to show of a variant beside the baseline."""

    variant: str
    sentence: str
    sign: Literal[1, -1]
    """1: its measure is above the baseline's."""
    if_not: str
    """Why it may not show it here."""


class Study(NamedTuple):
    """A question and the trainings that answer it."""

    name: str
    question: str
    variants: dict[str, Training]
    """The first is the baseline."""
    short: tuple[str, ...]
    """Those that the short form trains, the baseline among them; none leaves the study out."""
    note: str = ""
    """What is not seen in the numbers."""
    measure: Measure = "top_1"
    claim: Claim | None = None

    @property
    def baseline(self) -> str:
        """Name of the variant that all others are compared with."""
        return next(iter(self.variants))


_ENCODER = "model.init_args.video_encoder"
_CLASSES = "classification.yaml ablations/classes.yaml"
_PRETRAIN = "stage1_mvp.yaml ablations/stage1.yaml"


def _encoder(**arguments: object) -> dict[str, str]:
    return {f"{_ENCODER}.init_args.{name}": str(value) for name, value in arguments.items()}


def _classify(options: Mapping[str, str] | None = None, overlay: str = "") -> Training:
    return Training(f"{_CLASSES} {overlay}".strip(), options or {})


_TEACHER = Training(
    f"{_CLASSES} ablations/frame_only.yaml ablations/teacher.yaml", classifies=False
)


def _pretrained(mask: str = "attention", layers: int = 1) -> Training:
    """Classify after stage 1, in which a mask hides patches and some layers are aligned."""
    teacher = "model.init_args.teacher.init_args"
    stage1 = Training(
        _PRETRAIN,
        {
            "model.init_args.video_mask.kind": mask,
            f"{teacher}.num_layers": str(layers),
            **_encoder(num_taps=layers),
        },
        {f"{teacher}.pretrained": Start(_TEACHER, "checkpoints/last.ckpt")},
        classifies=False,
    )
    return Training(_CLASSES, _FEW, {"model.init_args.init_from": Start(stage1)})


_REFERENCE = _classify()
_FEW = {"data.init_args.train_videos": "data/ablations/train-000000.tar"}
_SMALL = Training(_CLASSES, _FEW, on_training=True)
_LARGE = _encoder(embed_dim=128)
_GUIDED = Training(
    "self_distillation.yaml ablations/classes.yaml ablations/small_teacher.yaml",
    _FEW | _LARGE,
    {"model.init_args.teacher_from": Start(_SMALL)},
    on_training=True,
)

STUDIES = (
    Study(
        "scan order",
        "In which order should the blocks scan the tokens of a clip?",
        {
            "spatial": _REFERENCE,
            **{
                order.replace("_", " "): _classify(_encoder(scan_order=order))
                for order in (
                    "temporal",
                    "st_v1",
                    "st_v2",
                    "half_spatial_then_temporal",
                    "half_temporal_then_spatial",
                    "alternating",
                )
            },
        },
        (),
        "The paper finds spatial best, on Kinetics. An order at chance (8.3) has not begun to "
        "learn in so few steps: of four directions alone, the temporal one learns 99 % in 500.",
    ),
    Study(
        "number of frames",
        "Does it take several frames to tell motions apart?",
        {
            "4 frames": _REFERENCE,
            **{number_of(n, "frame"): _classify(_encoder(num_frames=n)) for n in (1, 2, 8)},
        },
        ("4 frames", "1 frame"),
        claim=Claim(
            "1 frame",
            "Motion needs time",
            -1,
            "The place of the shape in a single frame may give its motion away.",
        ),
    ),
    Study(
        "encoder",
        "VideoMamba, or attention?",
        {
            "VideoMamba": _REFERENCE,
            "frame-only ViT": _classify(overlay="ablations/frame_only.yaml"),
            "joint attention": _classify(overlay="ablations/joint_vit.yaml"),
            "divided attention": _classify(overlay="ablations/divided_vit.yaml"),
        },
        ("VideoMamba", "frame-only ViT", "joint attention"),
        "All are 64 wide and have 0.15 to 0.22 million parameters. VideoMamba learns at a rate of "
        "0.003, the others at 0.001; a few rates were tried for each, and the sizes of the tables "
        "of positions at the start.",
    ),
    Study(
        "stage 1",
        "Does masked pretraining help where a quarter of the clips has labels?",
        {"from random weights": _SMALL, "after stage 1": _pretrained()},
        ("from random weights", "after stage 1"),
        "Stage 1 sees all clips, and is as long as the training of the classes. Its teacher is an "
        "image model that has learnt shapes from single frames of the same clips.",
        claim=Claim(
            "after stage 1",
            "Stage 1 helps",
            1,
            "The classes are motions, of which a teacher of single frames knows nothing.",
        ),
    ),
    Study(
        "mask",
        "Which patches should stage 1 hide?",
        {
            "attention": _pretrained(),
            **{
                kind.replace("_", " "): _pretrained(mask=kind)
                for kind in ("random", "tube", "frame_row", "clip_row")
            },
        },
        (),
        "As for stage 1, a quarter of the clips has labels. The paper finds the teacher's "
        "attention best, on Something-Something.",
    ),
    Study(
        "aligned layers",
        "How many layers should stage 1 compare with the teacher's?",
        {"1 layer": _pretrained(), **{f"{k} layers": _pretrained(layers=k) for k in (2, 4)}},
        (),
        "As for stage 1, a quarter of the clips has labels. The paper finds the last layer alone "
        "best.",
    ),
    Study(
        "self-distillation",
        "Does a small trained encoder keep a larger one from learning by heart?",
        {
            "large alone": Training(_CLASSES, _FEW | _LARGE, on_training=True),
            "large, guided by small": _GUIDED,
            "small alone": _SMALL,
        },
        ("large alone", "large, guided by small", "small alone"),
        "All three see a quarter of the clips only, so that there is something to learn by heart.",
        measure="gap",
        claim=Claim(
            "large, guided by small",
            "Self-distillation narrows the gap between training and test of the larger model",
            -1,
            "So few steps may not be enough to learn the clips by heart, or seeds differ much.",
        ),
    ),
)


def choose(names: list[str] | None, short: bool) -> list[Study]:
    """Give studies, with the variants of the short or the long form.

    Args:
        names: Of studies; None = all.
        short: Fewer studies, and fewer variants of them; one that is named stays.

    Raises:
        ValueError: If there is no study of a name.
    """
    known = {study.name: study for study in STUDIES}
    for name in names or []:
        if name not in known:
            raise ValueError(f"there is no study {name!r}; known are {', '.join(known)}")
    chosen = [study for study in STUDIES if names is None or study.name in names]
    if not short:
        return chosen
    return [
        study._replace(
            variants={name: study.variants[name] for name in study.short or study.variants}
        )
        for study in chosen
        if study.short or names is not None
    ]


def in_order(studies: list[Study]) -> list[Training]:
    """List every training once, those that others start from before them."""
    found: dict[str, Training] = {}

    def add(training: Training) -> None:
        for other in training.start.values():
            add(other.training)
        found.setdefault(training.key(), training)

    for study in studies:
        for training in study.variants.values():
            add(training)
    return [*found.values()]
