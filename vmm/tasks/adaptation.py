"""Train a part of a model, or some parts less than others; LoRA beside those that stay."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from itertools import chain
from typing import NamedTuple, Self

import lightning as L
from torch import nn

from vmm.models.lora import ENCODERS, Lora, add_adapters, kinds_of
from vmm.models.video_encoder import VideoEncoder
from vmm.optim import LayerDecay, layer_ratios
from vmm.tasks.draws import drawn_by_seed

logger = logging.getLogger(__name__)


class Fixed(NamedTuple):
    """What of a model training does not change."""

    parameters: Set[nn.Parameter]
    """In no group of the optimizer."""
    modules: Sequence[nn.Module]
    """Of such parameters alone; they are always in evaluation mode."""


class PartlyTrained(L.LightningModule):
    """A task that can leave parts of its ``model`` as they are.

    A part that is frozen has no dropout and no drop path. An encoder with LoRA has those of the
    recipe, as peft does it.

    Args:
        freeze: Parts of the model, or parameters: the beginning of their names, whole up to a dot,
            so that ``video_encoder.layers.1`` is not also ``layers.10``.
        lora: With it, the encoders' own parameters are frozen as well.
    """

    model: nn.Module
    fixed: Fixed | None = None
    """Once ``adapt`` has been called."""

    def __init__(self, freeze: str | Sequence[str] | None = None, lora: Lora | None = None) -> None:
        super().__init__()
        self.frozen_parts = [freeze] if isinstance(freeze, str) else [*(freeze or ())]
        self.lora = lora

    def unread(self) -> list[nn.Module | nn.Parameter]:
        """Name the parts that no loss reaches, in no step; see ``configure_model``."""
        return []

    def unread_parameters(self) -> set[nn.Parameter]:
        """Those of ``unread`` that the recipe does not freeze."""
        parts = (p.parameters() if isinstance(p, nn.Module) else [p] for p in self.unread())
        return set(chain(*parts)) - (self.fixed.parameters if self.fixed else set())

    def adapt(self) -> None:
        """Freeze what the recipe names, and add its LoRA.

        Raises:
            ValueError: If a name is none, LoRA fits no layer, or nothing is left to train.
        """
        model, names = self.model, self.frozen_parts
        frozen = {parameter for name in names for parameter in _freeze(model, name)}
        whole = [part for part in model.modules() if _within(part, frozen)]
        if self.lora is not None:
            with drawn_by_seed("lora"):
                layers = add_adapters(model, self.lora)
            said = self.lora.rank, len(layers), kinds_of(layers)
            logger.info("LoRA of rank %d beside %d layers: %s", *said)
            whole = [part for part in whole if _within(part, frozen)]  # no longer, with LoRA in it
            parts = (getattr(model, name, None) for name in ENCODERS)
            for encoder in (part for part in parts if part is not None):
                frozen |= {p for p in encoder.parameters() if not p.requires_grad}
                whole += [encoder] if _within(encoder, frozen) else []
        self.fixed = Fixed(frozen, whole)
        if not frozen:
            return
        unread = self.unread_parameters()
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad and p not in unread)
        if not trained:
            raise ValueError(
                f"model.init_args.freeze {', '.join(names)} leaves nothing to train; name fewer "
                "parts, or set model.init_args.lora"
            )
        still = sum(p.numel() for p in frozen)
        logger.info("%s parameters are frozen, %s are trained", f"{still:,}", f"{trained:,}")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, but for what is frozen."""
        super().train(mode)
        for module in self.fixed.modules if self.fixed else ():
            module.eval()
        return self


def _within(part: nn.Module, parameters: Set[nn.Parameter]) -> bool:
    own = set(part.parameters())
    return bool(own) and own <= parameters


def encoder_ratios(
    encoder: VideoEncoder, decay: float, policy: LayerDecay = "standard"
) -> dict[str, float]:
    """Let the layers of a task's video encoder learn the slower the nearer they are to the input.

    Args:
        encoder: Of the task.
        decay: Learning rate of a layer, as a multiple of that of the next one.
        policy: Which layers are meant, see ``vmm.optim.layer_ratios``.

    Returns:
        ``lr_ratios`` of the task.

    Raises:
        ValueError: If the encoder does not say what its layers are.
    """
    if decay == 1:
        return {}
    layers = [[f"model.video_encoder.{name}" for name in names] for names in encoder.layer_names()]
    if not layers:
        raise ValueError(
            f"{type(encoder).__name__} does not say what its layers are (layer_names), "
            "so model.init_args.layer_decay must be 1"
        )
    return layer_ratios(layers, decay, policy)


def _freeze(model: nn.Module, name: str) -> list[nn.Parameter]:
    found = [
        parameter
        for own, parameter in model.named_parameters(remove_duplicate=False)
        if f"{own}.".startswith(f"{name.rstrip('.')}.")
    ]
    if not found:
        own = [own for own, _ in model.named_parameters()]
        parts = sorted({name.partition(".")[0] for name in own})
        raise ValueError(
            f"model.init_args.freeze {name!r} is the beginning of no parameter's name; the parts "
            f"of the model are {', '.join(parts)}, one of its parameters is {own[len(own) // 2]}"
        )
    for parameter in found:
        parameter.requires_grad_(False)
    return found
