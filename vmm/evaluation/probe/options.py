"""What a probe is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from vmm.evaluation.common.class_protocols import ClassProtocol, class_protocol
from vmm.evaluation.common.options import ModelOptions

Probe = Literal["linear", "knn", "attentive"]
PROBES: tuple[Probe, ...] = get_args(Probe)


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """What a probe is told, beside what all evaluations are; the test clips are those of others.

    Args:
        train_shards: Pattern of the shards to train on; or, of a ``dataset``,
        train_annotations: the official file to train on; None = ``annotations``, which then hold
            both splits; and
        train_media: a folder of its media, or its shards; None = ``media``, or the folder of the
            annotations.
        class_field: Field of the samples' JSON that names the class; a dot leads into an object.
            None = as the run was trained, or where ``vmm shards make`` writes it, or "label".
        probes: Which probes; None = all of ``PROBES``.
        control: Whether the same encoder with random weights is probed too.
        token_grid: The attentive probe reads, of each frame, the means of so many times so many
            regions of its tokens; 0 = all tokens.
        seed: Of the random weights, the part of the training clips that settings are chosen on, and
            the attentive probe.
        batch_size: Clips encoded at once.
        num_workers: Processes that decode.
    """

    train_shards: str | None = None
    train_annotations: Path | None = None
    train_media: str | None = None
    class_field: str | None = None
    probes: Sequence[Probe] | None = None
    control: bool = True
    token_grid: int = 2
    seed: int = 0
    batch_size: int = 8
    num_workers: int = 0

    def check(self) -> None:
        """Refuse what no probe can be made of.

        Raises:
            ValueError: If training clips are missing, or there are no such probes or classes.
        """
        if not self.wanted or not {*(self.probes or ())} <= {*PROBES}:
            raise ValueError(f"probes {self.probes} must be some of {', '.join(PROBES)}")
        if self.token_grid < 0:
            raise ValueError(f"token_grid {self.token_grid} must be 0 (all tokens) or more")
        protocol = self.protocol
        if protocol is not None and protocol.is_regression:
            raise ValueError(f"{protocol.title} is a number to predict; probes tell classes apart")
        official = self.train_annotations is not None or self.train_media is not None
        if official if protocol is None else self.train_shards is not None:
            raise ValueError(
                "train_shards go with shards, train_annotations and train_media with a dataset; "
                "give clips to learn from as you give those to test on"
            )
        if protocol is None and self.train_shards is None:
            raise ValueError("give train_shards: a probe learns from clips with labels")
        if protocol is None and self.train_shards == self.shards:
            raise ValueError(
                f"{self.shards} is given to train on and to test on; give others to one of both, "
                "what a probe says of clips that it learnt from is no measure"
            )

    @property
    def wanted(self) -> list[Probe]:
        """The probes, in the usual order."""
        return [probe for probe in PROBES if self.probes is None or probe in self.probes]

    @property
    def protocol(self) -> ClassProtocol | None:
        """The set of classes that it is called; None = nobody's.

        Raises:
            ValueError: If there is none of that name.
        """
        return None if self.dataset is None else class_protocol(self.dataset)

    def official_train(self) -> tuple[Path, str]:
        """Give annotations and media to train on."""
        annotations, media = self.official()
        if self.train_annotations is None:
            return annotations, self.train_media or media
        own = str(self.train_annotations) if self.train_annotations.is_dir() else media
        return self.train_annotations, self.train_media or own
