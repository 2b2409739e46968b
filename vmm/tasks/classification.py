"""Classification of clips and stills, and the prediction of numbers (VideoMamba, section 3.2).

It starts from an imported checkpoint, a run of either pretraining stage or another classifier
(``init_from``). Shape legend: see ``vmm.types``; here K is the number of classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from vmm.data.annotations.class_list import ClassList
from vmm.data.datamodules import run_folder
from vmm.distributed import gather_objects, share
from vmm.losses.classification import (
    ProblemType,
    classification_loss,
    merge_views,
    smooth,
)
from vmm.metrics import hit_probability, mean_average_precision, text_to_video_ranks
from vmm.models.classifier import VideoClassifier
from vmm.models.video_encoder import VideoEncoder
from vmm.optim import LayerDecay
from vmm.runs import CLASS_LIST
from vmm.tasks.adaptation import encoder_ratios
from vmm.tasks.base import LossOutput, TrainingTask, refuse_outside
from vmm.tasks.draws import batch_draws
from vmm.tasks.mixing import Mixing
from vmm.text_output import write_text
from vmm.types import VideoTextBatch
from vmm.whole import whole_file


class ClassificationTask(TrainingTask):
    """Train an encoder and a linear head on what it pools.

    Args:
        video_encoder: Encodes clips; the published classifiers pool with ``cls`` and have no
            ``pool_norm``.
        num_classes: Classes, or numbers to predict.
        problem_type: What clips are labelled with: one class each ("single_label"), any number of
            classes ("multi_label"), or numbers to predict ("regression").
        classes: List of the names of the classes in the order of their numbers, for labels that
            are names; None = labels are numbers.
        label_smoothing: Share of the target that is spread over all classes.
        mixing: Mixup and cutmix of the training batches; see ``vmm.tasks.mixing``.
        optimizer: Makes the optimizer from parameter groups.
        layer_decay: Learning rate of a layer of the encoder as a multiple of that of the next one.
        layer_decay_policy: Which layers it reaches, see ``vmm.optim.layer_ratios``: all of them
            ("standard"), or those that the published code reaches ("published").
        weight_decay: For the parameters that are decayed at all.
        init_from: Run directory, a folder of ``vmm import``, or a checkpoint file; a head of
            another number of classes is left out.
        shared: As for ``TrainingTask``.
    """

    model: VideoClassifier
    replaced: ClassVar = {"head"}
    sees_views = True
    """Whether a test shows every sample in several views."""

    def __init__(
        self,
        video_encoder: VideoEncoder,
        num_classes: int,
        problem_type: ProblemType = "single_label",
        classes: str | None = None,
        label_smoothing: float = 0.0,
        mixing: Mixing = Mixing(),
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-4, betas=(0.9, 0.999)),
        layer_decay: float = 1.0,
        layer_decay_policy: LayerDecay = "standard",
        weight_decay: float = 0.05,
        init_from: str | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(
            optimizer=optimizer, weight_decay=weight_decay, init_from=init_from, **shared
        )
        refuse_outside(0, 1, label_smoothing=label_smoothing, layer_decay=layer_decay)
        refuse_outside(1, 10**6, num_classes=num_classes)
        if problem_type not in get_args(ProblemType):
            raise ValueError(f"problem_type {problem_type!r} is none of {get_args(ProblemType)}")
        if problem_type != "single_label" and label_smoothing:
            raise ValueError(
                f"label_smoothing {label_smoothing} is for one class of each clip; set it to 0 "
                f"with problem_type {problem_type!r}"
            )
        if problem_type == "regression" and mixing:
            raise ValueError(
                "numbers to predict are not mixed; leave model.init_args.mixing out with "
                "problem_type 'regression'"
            )
        self.num_classes = num_classes
        self.problem_type: ProblemType = problem_type
        self.classes = classes
        self.label_smoothing = label_smoothing
        self.mixing = mixing
        self.layer_decay = layer_decay
        self.layer_decay_policy: LayerDecay = layer_decay_policy
        self.model = VideoClassifier(video_encoder, num_classes)
        self.lr_ratios()  # which may be refused
        self._list: ClassList | None = None
        self._seen: list[tuple[str, Any]] = []

    def curves(self) -> set[str]:
        """Of training and validation."""
        return {"val/loss"} | {f"val/{name}" for name in _MEASURES[self.problem_type]}

    def lr_ratios(self) -> dict[str, float]:
        """The layers of the encoder learn the slower the nearer they are to the input."""
        return encoder_ratios(self.video_encoder, self.layer_decay, self.layer_decay_policy)

    def setup(self, stage: str) -> None:
        """Read the list of the classes, so that nothing begins with a wrong one."""
        _ = self.class_list

    def on_train_start(self) -> None:
        """Keep the names of the classes with the run."""
        super().on_train_start()
        folder = run_folder(self.trainer) if self.trainer.loggers else None
        if self.classes and folder is not None and self.trainer.is_global_zero:
            with whole_file(folder / CLASS_LIST) as file:
                write_text(file, "".join(f"{name or ''}\n" for name in self.class_list.names))

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """What makes no pooled features."""
        return [*self.video_encoder.unread(tokens=False, pooled=True)]

    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Loss of the labels; in training smoothed ones of a mixed batch."""
        video, targets = self.shown(batch)
        loss = classification_loss(self.model(video), targets, self.problem_type)
        if self.training:  # else a process may have no batch, and not come here
            loss = loss * share(len(targets), self.device)
        return LossOutput(loss, {}, {})

    def shown(self, batch: VideoTextBatch) -> tuple[Tensor, Tensor]:
        """Give what the model sees of a batch, and what it should say.

        Returns:
            (B, T, C, H, W) float32 clips, mixed in training, and (B, K) float32 targets.
        """
        video, targets = batch["video"], self.targets(batch)
        if not self.training:
            return video, targets
        if self.label_smoothing:
            targets = smooth(targets, self.label_smoothing)
        return self.mixing(video, targets, batch_draws(self._trainer, "mixing", batch["key"][0]))

    def targets(self, batch: VideoTextBatch) -> Tensor:
        """Give what the model should say of a batch: (B, K) float32.

        Raises:
            ValueError: If there are no labels, or one is not of these classes.
        """
        if "labels" not in batch:
            raise ValueError("the batch has no labels; set data.init_args.content to labels")
        targets = torch.zeros(len(batch["key"]), self.num_classes, dtype=torch.float32)
        for row, key, labels in zip(targets, batch["key"], batch["labels"], strict=True):
            if self.problem_type == "regression":
                row.copy_(torch.tensor(_numbers(labels, key, self.num_classes)))
                continue
            if len(labels) > 1 and self.problem_type == "single_label":
                raise ValueError(
                    f"{key} has {len(labels)} labels; set model.init_args.problem_type to "
                    "multi_label, or give shards with one label of each clip"
                )
            for label in labels:
                row[self.class_list.number(label, key)] = 1
        return targets.to(self.device)

    @property
    def class_list(self) -> ClassList:
        """The classes, read when they are first needed."""
        if self._list is None:
            self._list = ClassList(self.num_classes, Path(self.classes) if self.classes else None)
        return self._list

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Log the loss, and keep what the measures of the epoch are made of."""
        size = len(batch["key"])
        if size == 0:  # no clip of it has a label
            return
        targets, outputs = self.targets(batch), self.model(batch["video"]).float()
        loss = classification_loss(outputs, targets, self.problem_type)
        self.log("val/loss", loss, batch_size=size, sync_dist=True)
        self._keep(batch, outputs, targets)

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Merge what the model says of all views, (B, V, T, C, H, W), of each sample."""
        if not batch["key"]:
            return
        outputs = torch.stack([self.model(views).float() for views in batch["video"]])
        self._keep(batch, merge_views(outputs, self.problem_type), self.targets(batch))

    def on_validation_epoch_end(self) -> None:
        """Log top-1 and top-5 in percent, the mean average precision, or the squared error."""
        self._measure("val")

    def on_test_epoch_end(self) -> None:
        """The same of the test set."""
        self._measure("test")

    def _keep(self, batch: VideoTextBatch, outputs: Tensor, targets: Tensor) -> None:
        """Keep of every sample what the measures are made of; both are (B, K) float32."""
        found: Iterable[Any]
        if self.problem_type == "single_label":
            ranks = text_to_video_ranks(outputs, targets.argmax(1))
            found = torch.stack([hit_probability(ranks, k) for k in (1, 5)], 1).tolist()
        elif self.problem_type == "multi_label":
            found = zip(outputs.cpu(), targets.bool().cpu(), strict=True)
        else:
            found = (outputs - targets).square().mean(1).tolist()
        self._seen += zip(batch["key"], found, strict=True)

    def _measure(self, part: str) -> None:
        seen = dict(entry for found in gather_objects(self._seen) for entry in found)
        self._seen.clear()
        if not seen:
            raise ValueError(f"no clip has a label; see data.init_args.{part}_videos")
        if self.problem_type == "multi_label":
            scores, relevant = (torch.stack(column) for column in zip(*seen.values(), strict=True))
            values = [mean_average_precision(scores, relevant)]
        else:
            values = torch.tensor([*seen.values()]).reshape(len(seen), -1).mean(0).tolist()
            if self.problem_type == "single_label":
                values = [100 * value for value in values]
        for name, value in zip(_MEASURES[self.problem_type], values, strict=True):
            self.log(f"{part}/{name}", value, prog_bar=True, sync_dist=True)  # alike everywhere

    def predict_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Refuse: this model has no joint vectors."""
        raise ValueError("a classifier has no embeddings; predict with a run of stage 2")


_MEASURES: dict[ProblemType, tuple[str, ...]] = {
    "single_label": ("top_1", "top_5"),
    "multi_label": ("mean_average_precision",),
    "regression": ("mse",),
}


def _numbers(labels: list[tuple[str | None, float | None]], key: str, wanted: int) -> list[float]:
    """Take the numbers to predict of one sample."""
    numbers = [number for _, number in labels if number is not None]
    if len(numbers) != wanted or len(labels) != wanted:
        raise ValueError(
            f"{key} has {len(numbers)} numbers to predict among {len(labels)} labels, and "
            f"model.init_args.num_classes is {wanted}; set it to how many there are, or "
            "problem_type to single_label for classes"
        )
    return [float(number) for number in numbers]
