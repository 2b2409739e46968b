"""Clips and captions of a test set, each encoded once.

Shape legend: see ``vmm.types``; Nt captions (reversed ones included), Nv readable clips.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from eval.features import Clip, FeatureStore, MappedRows
from eval.models import ClipVectors, Encoder, Matcher
from eval.scoring import CaptionBank, encode_captions
from vmm import __version__
from vmm.data.loader import init_worker
from vmm.data.schema import REVERSED_CAPTION
from vmm.data.shards import EvaluationSample
from vmm.distributed import gather_objects, rank, world_size

logger = logging.getLogger(__name__)

Coverage = Literal["strict", "available"]


class TestSet(Protocol):
    """What is evaluated on: every clip once, by its number."""

    @property
    def frame_order(self) -> str:
        """Whether clips are played "forward" or "reversed"."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Reason -> what is left out of the data set, not being a clip of it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EvaluationSample: ...

    def fingerprint(self) -> str:
        """Tell states of the data apart."""


@dataclass(frozen=True)
class Settings:
    """How retrieval is measured.

    Args:
        k: Candidates per query that the matching head re-ranks; None = dual encoder only.
        coverage: "strict": a clip that cannot be read stays in the gallery and its queries are
            misses. "available": both are dropped.
        dual_softmax: Also measure the dual encoder with dual softmax, which looks at all queries.
        shared_captions: Clips with the same caption are all right answers to it, as with
            Something-Something's templates.
        batch_size: Clips, and captions, encoded at once.
        num_workers: Processes that decode.

    Raises:
        ValueError: If k is below 1.
    """

    k: int | None = 128
    coverage: Coverage = "strict"
    dual_softmax: bool = False
    shared_captions: bool = False
    batch_size: int = 32
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}; --no-rerank switches it off")


class Pairs(NamedTuple):
    """Clips with a caption of the reversed motion; rows and columns of the score matrices."""

    clip: Tensor
    """(n,) columns."""
    right: Tensor
    """(n,) rows of the clips' captions."""
    wrong: Tensor
    """(n,) rows of the reversed ones."""


class Encoded(NamedTuple):
    """All clips and captions, encoded once."""

    clips: list[Clip]
    numbers: list[int]
    """Of these clips in the data set."""
    captions: list[str]
    """The queries, in the order of their clips."""
    relevant: Tensor
    """(num_texts, num_clips) bool, which clips a caption is about."""
    readable: Tensor
    """(Nv,) int64, the clips that the columns of the score matrices stand for."""
    pairs: Pairs
    text: CaptionBank
    """Nt rows: the captions, then the reversed captions."""
    projected: Tensor
    """(Nv, P, E)."""
    tokens: MappedRows | None
    """Nv times (L, D), mapped from disk; None for the dual encoder only."""


def feature_store(
    folder: Path, encoder: Encoder, dataset: TestSet, settings: Settings
) -> FeatureStore:
    """Open the features of a model on a data set, where an evaluation that was killed goes on.

    Args:
        folder: Where features are kept; all processes must see it.
        encoder: The model.
        dataset: The clips.
        settings: How they will be measured.
    """
    depends_on = {
        "model": encoder.identity(),
        "clip": asdict(encoder.clip),
        "data": dataset.fingerprint(),
        "frame_order": dataset.frame_order,
        "tokens": matcher_of(encoder, settings) is not None,
        "versions": [__version__, torch.__version__],
    }
    return FeatureStore(folder, depends_on, len(dataset), rank())


def matcher_of(encoder: Encoder, settings: Settings) -> Matcher | None:
    """Give the encoder as one that can re-rank, if it can and is asked to."""
    return encoder if settings.k is not None and isinstance(encoder, Matcher) else None


@torch.inference_mode()
def encode_clips(
    encoder: Encoder, dataset: TestSet, settings: Settings, store: FeatureStore, keep_tokens: bool
) -> None:
    """Encode the clips that the store does not have, this process's share of them.

    Args:
        encoder: The model.
        dataset: The clips.
        settings: Batch size and processes that decode.
        store: Gets the features.
        keep_tokens: Keep what the matching head looks at; without it there is no re-ranking.
    """
    finished = store.finished()
    if finished:
        logger.info("%d of %d clips were encoded before; going on", len(finished), len(dataset))
    gather_objects(None)  # nobody writes before all have looked
    missing = [n for n in range(len(dataset)) if n not in finished][rank() :: world_size()]
    loader: DataLoader[EvaluationSample] = DataLoader(
        Subset(dataset, missing),  # type: ignore[arg-type]  # a protocol, which no class needs
        settings.batch_size,
        num_workers=settings.num_workers,
        collate_fn=list,
        worker_init_fn=init_worker,
    )
    with tqdm(desc="clips", total=len(missing), unit="clip") as bar:
        for samples in loader:
            videos = [sample.video for sample in samples if sample.video is not None]
            vectors = ClipVectors(torch.empty(0))
            if videos:
                vectors = encoder.encode_videos(torch.stack(videos))
            if not keep_tokens:
                vectors = vectors._replace(tokens=None)
            store.add([sample.number for sample in samples], list(map(_clip, samples)), vectors)
            bar.update(len(samples))
    gather_objects(None)  # all are finished


def encode(
    encoder: Encoder, clips: list[Clip], store: FeatureStore, settings: Settings, keep_tokens: bool
) -> Encoded:
    """Encode the captions, and set clips and captions in relation.

    Args:
        encoder: The model.
        clips: All clips, by number.
        store: Has their features.
        settings: How to measure.
        keep_tokens: As for ``encode_clips``.

    Raises:
        ValueError: If no clip can be read, there is no caption or a feature is NaN.
    """
    rows = [number for number, clip in enumerate(clips) if clip.problem is None]
    if not rows:
        reasons = Counter(str(clip.problem) for clip in clips)
        raise ValueError(
            f"not one of {len(clips)} clips could be read ({reasons.most_common(1)[0][0]}); look "
            "at the reasons in the log"
        )
    numbers = rows if settings.coverage == "available" else list(range(len(clips)))
    clips = [clips[number] for number in numbers]
    captions, relevant = relate(clips, settings.shared_captions)
    if not captions:
        raise ValueError("no clip has a caption; there is nothing to look for")
    readable = [number for number, clip in enumerate(clips) if clip.problem is None]
    backwards = {
        column: clips[clip].reversed_caption or ""
        for column, clip in enumerate(readable)
        if clips[clip].reversed_caption and clips[clip].captions
    }
    first_row = relevant.byte().argmax(0).tolist()
    pairs = Pairs(
        clip=torch.tensor(list(backwards), dtype=torch.int64),
        right=torch.tensor([first_row[readable[c]] for c in backwards], dtype=torch.int64),
        wrong=len(captions) + torch.arange(len(backwards)),
    )
    text = encode_captions(encoder, [*captions, *backwards.values()], settings.batch_size)
    projected = store.read("projected")[rows]
    refuse_broken(projected, "clips", [clips[number].key for number in readable])
    refuse_broken(text.projected, "captions", [*captions, *backwards.values()])
    tokens = MappedRows(store.read("tokens"), rows) if keep_tokens else None
    return Encoded(
        clips, numbers, captions, relevant, torch.tensor(readable), pairs, text, projected, tokens
    )


def refuse_broken(vectors: Tensor, kind: str, names: Sequence[str]) -> None:
    """Refuse vectors that are no numbers.

    Args:
        vectors: (n, ...).
        kind: What they are of, in the plural.
        names: n.

    Raises:
        ValueError: With their number and the first names.
    """
    broken = (~vectors.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        some = ", ".join(repr(names[row])[:80] for row in broken[:3])
        raise ValueError(
            f"the vectors of {len(broken)} of {len(vectors)} {kind} hold NaN or infinity (first: "
            f"{some}): the model's weights or its precision are broken"
        )


def relate(clips: Sequence[Clip], shared_captions: bool) -> tuple[list[str], Tensor]:
    """List the queries and which clips they are about.

    Args:
        clips: In the order of the columns.
        shared_captions: See ``Settings``.

    Returns:
        Captions in the order of their clips, and (num_texts, num_clips) bool.
    """
    captions: list[str] = []
    places: list[tuple[int, int]] = []
    row_of: dict[str, int] = {}
    for column, clip in enumerate(clips):
        for caption in clip.captions:
            row = row_of.get(caption) if shared_captions else None
            if row is None:
                row = row_of[caption] = len(captions)
                captions.append(caption)
            places.append((row, column))
    relevant = torch.zeros(len(captions), len(clips), dtype=torch.bool)
    if places:
        relevant[tuple(torch.tensor(places).T)] = True
    return captions, relevant


def _clip(sample: EvaluationSample) -> Clip:
    backwards = sample.metadata.get(REVERSED_CAPTION)
    caption = backwards if isinstance(backwards, str) else None
    return Clip(sample.key, sample.captions, caption, sample.problem)
