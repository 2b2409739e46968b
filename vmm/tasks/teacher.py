"""What tasks with a frozen teacher share: it is loaded when it is asked, and in no checkpoint."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import nn


class WithTeacher(L.LightningModule):
    """A task that asks a frozen ``teacher``, or None, about its batches."""

    teacher: nn.Module | None

    validates_with_teacher = False
    """Whether validation, too, asks the teacher."""

    _taught = False

    def load_teacher(self) -> None:
        """Load the teacher's weights."""

    def configure_model(self) -> None:
        """Load the teacher where it is asked, and the start weights when fitting begins."""
        if (self.trainer.training or self.validates_with_teacher) and not self._taught:
            self._taught = True
            self.load_teacher()
        super().configure_model()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen teacher out of the file."""
        state = checkpoint["state_dict"]
        for key in [k for k in state if k.startswith("teacher.")]:
            del state[key]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give strict loading the teacher's weights back, from the teacher itself."""
        if self.teacher is not None and "state_dict" in checkpoint:
            state = self.teacher.state_dict(prefix="teacher.")
            checkpoint["state_dict"] |= {k: v.clone() for k, v in state.items()}
        super().on_load_checkpoint(checkpoint)
