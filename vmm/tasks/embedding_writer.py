"""Store what ``vmm predict`` computes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BasePredictionWriter
from safetensors.torch import save_file

logger = logging.getLogger(__name__)


class EmbeddingWriter(BasePredictionWriter):
    """Write joint vectors and their sample keys into the run's log directory.

    ``embeddings.safetensors`` holds ``video`` (M, P, E) and ``text`` (M, E), float32, every vector
    of unit length; ``embeddings.json`` the M keys in the same order. A process writes its own part;
    parts of further processes carry their rank in the name.
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
        """Store the epoch's predictions."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stem = "embeddings" if trainer.world_size == 1 else f"embeddings_{trainer.global_rank}"
        tensors = {
            "video": F.normalize(torch.cat([batch.video for batch in predictions]), dim=-1),
            "text": F.normalize(torch.cat([batch.text for batch in predictions]), dim=-1),
        }
        save_file(tensors, folder / f"{stem}.safetensors")
        keys = [key for batch in predictions for key in batch.key]
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
