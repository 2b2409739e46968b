"""Parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

DecayPolicy = Literal["standard", "reference_stage1", "reference_stage2"]
LayerDecay = Literal["standard", "published"]

_TABLES = {"cls_token", "pos_embed", "temporal_pos_embedding"}
_STATE_SPACE = {"A_log", "A_b_log", "D", "D_b"}


def param_groups(
    model: nn.Module,
    weight_decay: float,
    policy: DecayPolicy = "standard",
    lr_ratios: Mapping[str, float] | None = None,
    unread: Set[nn.Parameter] = frozenset(),
) -> list[dict[str, Any]]:
    """Split the trainable parameters by weight decay and learning rate.

    Args:
        model: Its frozen parameters appear in no group.
        weight_decay: For the decayed groups.
        policy: ``standard`` spares vectors and scalars (biases, norms, the temperature),
            state-space parameters (as Mamba's authors ask for), embeddings, and what a module
            names in its ``no_weight_decay()``. The published code spares biases and vectors only
            (``reference_stage2``, which decays even the temperature and A_log), in stage 1
            position tables and the class token as well (``reference_stage1``).
        lr_ratios: Start of a parameter's name to its learning rate as a share of the optimizer's;
            1 for the others.
        unread: Parameters that are frozen only because no loss of this recipe reaches them; they
            keep their place in the groups, so that a recipe with that loss can go on from here.

    Returns:
        Groups in the form that optimizers take, decayed ones first, each with its ``lr_ratio``.
    """
    spared = _spared_names(model, policy)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter not in unread:
            continue
        # A single number, such as the temperature, had no dimension in the published code.
        vector = policy == "standard" if parameter.numel() == 1 else parameter.ndim == 1
        keep = vector or name.endswith(".bias") or name in spared
        ratios = [r for start, r in (lr_ratios or {}).items() if name.startswith(start)]
        groups.setdefault((keep, ratios[0] if ratios else 1.0), []).append(parameter)
    return [
        {"params": groups[key], "weight_decay": 0.0 if key[0] else weight_decay, "lr_ratio": key[1]}
        for key in sorted(groups)
    ]


def layer_ratios(
    layers: Sequence[Sequence[str]], decay: float, policy: LayerDecay = "standard"
) -> dict[str, float]:
    """Give each layer the learning rate of the next one times ``decay`` (BEiT, arXiv 2106.08254).

    Args:
        layers: How the names of each layer's parameters begin, the embedding first.
        decay: Of one layer.
        policy: ``standard`` reaches all layers. The published fine-tuning code knows no layer of a
            VideoMamba by its name: only the embedding without its table of times has a smaller rate
            (``published``), that of ``standard``.

    Returns:
        ``lr_ratios`` of ``param_groups``; what is not named has 1.
    """
    steps = range(len(layers), 0, -1)
    ratios = {
        name: decay**step for names, step in zip(layers, steps, strict=True) for name in names
    }
    if policy == "published":
        reached = {name for name in layers[0] if not name.endswith("temporal_pos_embedding")}
        ratios = {name: ratio for name, ratio in ratios.items() if name in reached}
    return ratios


def _spared_names(model: nn.Module, policy: DecayPolicy) -> set[str]:
    """Full names of the matrices that the policy leaves without decay."""
    if policy == "reference_stage2":
        return set()
    own = {name: name.rpartition(".")[2] for name, _ in model.named_parameters()}
    if policy == "reference_stage1":
        return {name for name, last in own.items() if last in _TABLES}
    spared = {name for name, last in own.items() if last in _STATE_SPACE}
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(module, nn.Embedding):
            spared.add(f"{dot}weight")
        declared = getattr(module, "no_weight_decay", None)
        if callable(declared):
            spared |= {f"{dot}{name}" for name in declared()}
    return spared


def check_epsilon(optimizer: Optimizer) -> None:
    """Refuse float16 weights with a divisor that would be zero: the first step makes them NaN.

    Raises:
        ValueError: With the divisor and what to take instead.
    """
    for group in optimizer.param_groups:
        eps = group.get("eps")
        half = any(parameter.dtype == torch.float16 for parameter in group["params"])
        if half and eps is not None and torch.tensor(eps, dtype=torch.float16).item() == 0:
            raise ValueError(
                f"eps {eps} of {type(optimizer).__name__} is 0 in float16, in which "
                "trainer.precision 16-true keeps the weights, so the first step would make them "
                "NaN; train with 16-mixed or bf16-true, or set the optimizer's eps to 1e-4"
            )


def fuse_on_cpu(optimizer: Optimizer) -> None:
    """Let an Adam or AdamW change all parameters in one pass where they are on the CPU.

    A third of the time of PyTorch's own choice there, which takes ten passes. Given to the
    optimizer as it is built, the setting would also claim the scaler's work in mixed float16, whose
    gradients could then not be clipped. Who chose a way keeps it.

    Args:
        optimizer: Changed in place, before its first step.
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.Adam) else ():
        chosen = group["foreach"] is not None or group["fused"] is not None
        chosen = chosen or group["differentiable"] or group["capturable"]
        here = all(p.device.type == "cpu" and p.is_floating_point() for p in group["params"])
        group["fused"] = True if here and not chosen else group["fused"]


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, min_ratio: float = 0.01) -> float:
    """Multiplier of the peak learning rate: linear warm-up, then half a cosine, cut off below.

    The published schedule: the first step already runs at ``min_ratio``, and a run that goes on
    past ``total_steps`` sees the cosine rise again.

    Args:
        step: Optimizer steps done so far.
        warmup_steps: Length of the warm-up.
        total_steps: Length of the run, warm-up included.
        min_ratio: Lower bound of the multiplier.

    Returns:
        A number in [min_ratio, 1].
    """
    if step < warmup_steps:
        return max(min_ratio, step / warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(min_ratio, 0.5 * (1 + math.cos(math.pi * progress)))
