"""Store what ``vmm predict`` computes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BasePredictionWriter

from vmm.data.datamodules import run_folder
from vmm.models.weight_files import write_tensors

logger = logging.getLogger(__name__)


class EmbeddingWriter(BasePredictionWriter):
    """Write joint vectors and their sample keys into the run's log directory.

    ``embeddings.safetensors`` holds ``video`` (M, P, E) and ``text`` (M, E), float32, every vector
    of unit length; ``embeddings.json`` the M keys in the same order. A process writes its own part;
    parts of further processes carry their rank in the name. A run that is stopped or fails leaves
    what it had computed as ``embeddings_unfinished``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Store the epoch's predictions.

        Raises:
            ValueError: If no clip could be read.
        """
        if not any(batch.key for batch in predictions):
            raise ValueError("none of the test clips can be read, so there is nothing to write")
        _write(trainer, predictions, "embeddings")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Store what there is."""
        predictions = trainer.predict_loop.predictions
        if trainer.state.fn == "predict" and any(batch.key for batch in predictions):
            _write(trainer, predictions, "embeddings_unfinished")


def _write(trainer: L.Trainer, predictions: Sequence[Any], stem: str) -> None:
    folder = run_folder(trainer)
    if folder is None:
        logger.info("nothing is written in a fast_dev_run")
        return
    kept = [batch for batch in predictions if batch.key]
    folder.mkdir(parents=True, exist_ok=True)
    if trainer.world_size > 1:
        stem += f"_{trainer.global_rank}"
    tensors = {
        "video": F.normalize(torch.cat([batch.video for batch in kept]), dim=-1),
        "text": F.normalize(torch.cat([batch.text for batch in kept]), dim=-1),
    }
    write_tensors(tensors, folder / f"{stem}.safetensors")
    keys = [key for batch in kept for key in batch.key]
    for name, rows in tensors.items():
        broken = (~rows.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if broken:
            logger.warning(
                "%d of %d %s vectors hold NaN or infinity, e.g. that of %s: the model's "
                "weights or its precision are broken",
                *(len(broken), len(rows), name, keys[broken[0]]),
            )
    (folder / f"{stem}.json").write_text(json.dumps(keys, indent=0))
    logger.info("wrote %d embeddings to %s", len(keys), folder / f"{stem}.safetensors")
