"""What an evaluation of classification is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm.evaluation.common.class_protocols import ClassProtocol, class_protocol
from vmm.evaluation.common.options import ModelOptions
from vmm.evaluation.common.sources import FrameOrder

TEMPLATES = ("{}", "a video of {}", "a person is {}")


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What an evaluation of classification is told, beside what all are.

    Args:
        class_field: Field of the samples' JSON that names the class; a dot leads into an object.
            None = as the run was trained, or where ``vmm shards make`` writes it, or "label".
        ids: List of the ids to keep of the annotations.
        classes: File of the class names in the order of their numbers; None = the run's, if it is
            there.
        templates: Prompts in which ``{}`` stands for the class; None = ``TEMPLATES``.
        clips: Clips per video; None = as published for trained classifiers, or 1.
        crops: Crops per clip; None = as published for trained classifiers, or 1.
        frame_order: "reversed" plays every clip backwards.
        batch_size: Samples encoded at once.
        num_workers: Processes that decode.
    """

    class_field: str | None = None
    ids: Path | None = None
    classes: Path | None = None
    templates: Sequence[str] | None = None
    clips: int | None = None
    crops: int | None = None
    frame_order: FrameOrder = "forward"
    batch_size: int = 8
    num_workers: int = 0

    @property
    def protocol(self) -> ClassProtocol | None:
        """The test set that it is called; None = nobody's.

        Raises:
            ValueError: If there is none of that name.
        """
        return None if self.dataset is None else class_protocol(self.dataset)
