"""Clips of a test set, each encoded once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from vmm.data.loader import init_worker
from vmm.data.schema import REVERSED_CAPTION
from vmm.data.shards import EvaluationSample
from vmm.distributed import gather_objects, rank, world_size
from vmm.evaluation.common.features import Clip, FeatureStore
from vmm.evaluation.common.models import ClipEncoder, ClipVectors, Encoder, VmmEncoder
from vmm.version import __version__
from vmm.wording import CaptionCheck

logger = logging.getLogger(__name__)


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


def feature_store(
    folder: Path, encoder: ClipEncoder, dataset: TestSet, keep_tokens: bool
) -> FeatureStore:
    """Open the features of a model on a data set, where an evaluation that was killed goes on.

    Args:
        folder: Where features are kept; all processes must see it.
        encoder: The model.
        dataset: The clips.
        keep_tokens: Whether they hold what the matching head looks at.
    """
    depends_on = {
        "model": encoder.identity(),
        "clip": asdict(encoder.clip),
        "data": dataset.fingerprint(),
        "frame_order": dataset.frame_order,
        "tokens": keep_tokens,
        "versions": [__version__, torch.__version__],
    }
    return FeatureStore(folder, depends_on, len(dataset), rank())


@torch.inference_mode()
def encode_clips(
    encoder: ClipEncoder,
    dataset: TestSet,
    store: FeatureStore,
    keep_tokens: bool,
    batch_size: int,
    num_workers: int,
) -> None:
    """Encode the clips that the store does not have, this process's share of them.

    Args:
        encoder: The model.
        dataset: The clips.
        store: Gets the features.
        keep_tokens: Keep what the matching head looks at; without it there is no re-ranking.
        batch_size: Clips encoded at once.
        num_workers: Processes that decode.
    """
    finished = store.finished()
    if finished:
        logger.info("%d of %d clips were encoded before; going on", len(finished), len(dataset))
    gather_objects(None)  # nobody writes before all have looked
    missing = [n for n in range(len(dataset)) if n not in finished][rank() :: world_size()]
    loader: DataLoader[EvaluationSample] = DataLoader(
        Subset(dataset, missing),  # type: ignore[arg-type]  # a protocol, which no class needs
        batch_size,
        num_workers=num_workers,
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


def _clip(sample: EvaluationSample) -> Clip:
    backwards = sample.metadata.get(REVERSED_CAPTION)
    caption = backwards if isinstance(backwards, str) else None
    return Clip(sample.key, sample.captions, caption, sample.problem)


def check_texts(encoder: Encoder, texts: Sequence[str]) -> CaptionCheck | None:
    """Say what becomes of texts in an encoder; None if that cannot be told of it."""
    return encoder.check_captions(texts) if isinstance(encoder, VmmEncoder) else None
