"""What the text encoder will make of the captions, said before training begins."""

from __future__ import annotations

import logging

import lightning as L

from vmm.data.caption_sample import sample_captions
from vmm.data.corpora import patterns_of
from vmm.data.patterns import expand_shards, is_remote
from vmm.models.text_interface import TextEncoder

logger = logging.getLogger(__name__)

_SAMPLES = 1000


def say_of_captions(trainer: L.Trainer, text_encoder: TextEncoder) -> None:
    """Look at some captions of the training shards, and say how many are cut or spelled out.

    Args:
        trainer: Its datamodule has the shards; nothing is said of those that are elsewhere.
        text_encoder: Reads the captions.
    """
    if not trainer.is_global_zero:
        return
    data = getattr(trainer, "datamodule", None)
    given = (getattr(data, name, None) for name in ("train_videos", "train_images"))
    named = [pattern for shards in given if shards for pattern in patterns_of(shards)]
    patterns = [pattern for pattern in named if not is_remote(pattern)]
    captions = sample_captions(expand_shards(patterns, quiet=True), _SAMPLES) if patterns else []
    check = text_encoder.check_captions(captions) if captions else None
    if check is None:
        return
    much = check.said(little=False)
    for fault, sentence in check.said().items():
        level = logging.WARNING if fault in much else logging.INFO
        logger.log(level, "of the training captions looked at, %s", sentence)
