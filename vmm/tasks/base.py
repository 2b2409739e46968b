"""What all tasks share: start weights, parameter groups, the optimizer and its learning rates."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vmm.models.lora import Lora, merge_adapters
from vmm.models.video_encoder import VideoEncoder
from vmm.models.weights import key_problems, shorten
from vmm.optim import DecayPolicy, check_epsilon, fuse_on_cpu, param_groups, warmup_cosine
from vmm.tasks.adaptation import PartlyTrained
from vmm.tasks.start import component_names, load_published, load_start_weights
from vmm.types import VideoTextBatch

logger = logging.getLogger(__name__)


def refuse_outside(low: float, high: float, **settings: float) -> None:
    """Refuse settings outside of [low, high].

    Raises:
        ValueError: With the name and the value.
    """
    for name, value in settings.items():
        if not low <= value <= high:
            wanted = f"{low} or more" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"model.init_args.{name} is {value}; set it to {wanted}")


class LossOutput(NamedTuple):
    """Losses of one batch."""

    total: Tensor
    """Weighted sum, a scalar with gradient."""
    terms: dict[str, Tensor]
    """Each computed term, unweighted."""
    log: dict[str, Tensor]
    """Further numbers worth a curve, detached."""


class TrainingTask(PartlyTrained):
    """Base of everything that is trained.

    Args:
        optimizer: Makes the optimizer from parameter groups.
        weight_decay: For the parameters that are decayed at all.
        decay_policy: Which parameters those are; see ``vmm.optim.param_groups``.
        warmup_steps: Optimizer steps of linear warm-up.
        min_lr_ratio: Learning rate at the end, as a share of the peak.
        init_from: Run directory or checkpoint file whose weights to start from.
        init_parts: Parts of the model that get these weights, such as ``video_encoder``; None =
            all that both have.
        freeze: Parts of the model that stay as they are, such as ``video_encoder``.
        lora: Train small matrices beside layers of frozen encoders.
    """

    model: nn.Module
    """What is trained; it has a ``video_encoder`` and perhaps a ``text_encoder``."""

    training_only: ClassVar[set[str]] = {"teacher", "align_head", "logit_bias", "distill_head"}
    """Parts that evaluation does not use."""

    gradient_norm: Tensor | None = None
    """Of the gradients of this step, a scalar, where the number guard has measured it."""

    replaced: ClassVar[set[str]] = set()
    """Parts that begin anew where those of ``init_from`` have another size."""

    def __init__(
        self,
        optimizer: OptimizerCallable,
        weight_decay: float = 0.05,
        decay_policy: DecayPolicy = "standard",
        warmup_steps: int = 1000,
        min_lr_ratio: float = 0.01,
        init_from: str | None = None,
        init_parts: str | list[str] | None = None,
        freeze: str | list[str] | None = None,
        lora: Lora | None = None,
    ) -> None:
        super().__init__(freeze, lora)
        refuse_outside(0, math.inf, weight_decay=weight_decay, warmup_steps=warmup_steps)
        refuse_outside(0, 1, min_lr_ratio=min_lr_ratio)
        if init_from == "":
            raise ValueError("init_from is empty; null leaves it out")
        if init_parts is not None and init_from is None:
            raise ValueError(f"init_parts {init_parts} are parts of init_from; set that, too")
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.decay_policy: DecayPolicy = decay_policy
        self.warmup_steps = warmup_steps
        self.min_lr_ratio = min_lr_ratio
        self.init_from = init_from
        self.init_parts = [init_parts] if isinstance(init_parts, str) else init_parts
        self._started = False
        self._recipe_groups: list[dict[str, Any]] = []

    @property
    def video_encoder(self) -> VideoEncoder:
        """The encoder being trained; the datamodule reads its frame count and image size."""
        encoder = self.model.video_encoder
        assert isinstance(encoder, VideoEncoder)
        return encoder

    @abstractmethod
    def compute_losses(self, batch: VideoTextBatch) -> LossOutput:
        """Losses of one batch: no logging, no trainer."""

    def curves(self) -> set[str]:
        """Names of what it logs beside ``train/loss``; none: anything may be watched."""
        return set()

    def lr_ratios(self) -> dict[str, float]:
        """Parameters that learn at another rate; see ``vmm.optim.param_groups``."""
        return {}

    def load_pretrained(self) -> None:
        """Load published weights that the recipe names; ``init_from`` comes after and wins."""
        load_published(self.model)

    def load_start(self) -> list[str]:
        """Load all weights that fitting starts from; give the components that a run had."""
        self.load_pretrained()
        if self.init_from is None:
            return []
        path = Path(self.init_from)
        return load_start_weights(self, path, self.replaced, self.init_parts)

    def configure_model(self) -> None:
        """Load the start weights when fitting begins, or to evaluate them; once per process.

        Parts that no loss reaches are frozen: processes exchange the gradients of all others, and
        would wait for theirs. They stay in the optimizer's groups, which hold nothing of them.

        Raises:
            ValueError: If parts of what is to be evaluated would have random weights.
        """
        if self._started or not (self.trainer.training or self.init_from):
            return
        self._started = True
        loaded = self.load_start()
        if self.trainer.training:
            self.adapt()
            for part in self.unread():
                part.requires_grad_(False)
        untrained = sorted(component_names(self) - set(loaded) - self.training_only)
        if untrained and not self.trainer.training:
            raise ValueError(
                f"{self.init_from} has no {', '.join(untrained)}, so these would be evaluated with "
                "random weights; name a run of the same stage"
            )

    def on_train_start(self) -> None:
        """Let the recipe win over the learning rates and decays that a checkpoint brought."""
        scheduler = self.lr_schedulers()
        if not isinstance(scheduler, LambdaLR):
            return  # of a task of somebody else's
        groups = scheduler.optimizer.param_groups
        for group, own in zip(groups, self._recipe_groups, strict=True):
            group.update(own)
        scheduler.base_lrs = [own["initial_lr"] for own in self._recipe_groups]
        for group, rate in zip(groups, scheduler.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * rate(scheduler.last_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that this run cannot go on from.

        Raises:
            ValueError: If it is of another model, or holds weights alone.
        """
        if "state_dict" not in checkpoint:  # of DeepSpeed or FSDP, which load it by themselves
            return
        for state in checkpoint.get("optimizer_states", []):
            for entry in state["state"].values():  # the temperature of older files: no dimension
                entry |= {k: v.reshape(1) for k, v in entry.items() if _single(k, v)}
        if self.fixed is None:  # to evaluate: without adapters
            checkpoint["state_dict"] = merge_adapters(checkpoint["state_dict"])
        problems = key_problems(checkpoint["state_dict"], self.state_dict())
        if problems:
            raise ValueError(
                f"the checkpoint is of another stage or of another model: {shorten(problems)}; "
                "take one of this recipe, or start from its weights with "
                "--model.init_args.init_from"
            )
        fitting = self._trainer is not None and self._trainer.training
        if fitting and "optimizer_states" not in checkpoint:
            raise ValueError(
                "the checkpoint holds weights without the optimizer's state, so no run can go on "
                "from it; start one from its weights with --model.init_args.init_from"
            )

    def training_step(self, batch: VideoTextBatch, batch_idx: int) -> Tensor:
        """One step: losses, then their curves; gives the total, a scalar."""
        losses = self.compute_losses(batch)
        size = len(batch["text"])
        self.log("train/loss", losses.total, prog_bar=True, batch_size=size)
        for name, value in (losses.terms | losses.log).items():
            self.log(f"train/{name}", value, batch_size=size)
        return losses.total

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as torch does, by the norm of the number guard, if it has measured one.

        Nothing is left to clip, and torch cannot, where the guard has dropped all gradients.
        """
        norm, self.gradient_norm = self.gradient_norm, None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if all(p.grad is None for p in parameters):
            return
        if norm is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Parameter groups, the injected optimizer, warm-up and cosine decay by step."""
        unread = self.unread_parameters()
        groups = param_groups(self, self.weight_decay, self.decay_policy, self.lr_ratios(), unread)
        optimizer = self.optimizer(groups)
        check_epsilon(optimizer)
        fuse_on_cpu(optimizer)
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_ratio"]
        total = self.trainer.estimated_stepping_batches
        if total == math.inf:
            raise ValueError(
                "the learning rate falls until the end of the run, which must be known: set "
                "trainer.max_epochs or trainer.max_steps, also beside max_time"
            )

        def multiplier(step: int) -> float:
            return warmup_cosine(step, self.warmup_steps, int(total), self.min_lr_ratio)

        scheduler = LambdaLR(optimizer, multiplier)
        self._recipe_groups = [
            {name: value for name, value in group.items() if name not in ("params", "lr")}
            for group in optimizer.param_groups
        ]
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _single(name: str, value: Any) -> bool:
    """Tell a moment of a parameter without dimensions."""
    return isinstance(value, Tensor) and value.ndim == 0 and name != "step"
