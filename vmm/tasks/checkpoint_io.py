"""Checkpoint files that are either complete or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class SafeCheckpointIO(TorchCheckpointIO):
    """Write beside the target, read back, then rename.

    Lightning stages the file in the temporary directory and moves it; across file systems that is
    a copy over the previous checkpoint, which a kill or a full disk leaves truncated. Here the
    old file survives until the new one is complete, loadable without pickle, and on disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save a checkpoint under ``path``, atomically.

        Raises:
            pickle.UnpicklingError: If the checkpoint holds an object that could not be loaded
                again with ``weights_only=True``; nothing is left behind.
        """
        target = Path(os.fspath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(f".{target.name}.tmp", ".", target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            torch.load(temporary, weights_only=True, mmap=True, map_location="meta")
            temporary.replace(target)
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            temporary.unlink(missing_ok=True)
