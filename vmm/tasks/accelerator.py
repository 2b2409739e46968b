"""What ``trainer.accelerator: auto`` means: no GPU on which an encoder is not what it is on a CPU.

Lightning takes Apple's GPU (MPS) wherever PyTorch has it. Operators are missing there, or wrong in
some versions of macOS and PyTorch, so an encoder is tried before a run is given to it.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from vmm.models.videomamba import VideoMamba

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Largest difference to a CPU, of the largest number; float32 has 1e-5 where all is well."""


def settle_accelerator(asked: str) -> str:
    """Return the accelerator to ask Lightning for.

    Args:
        asked: ``trainer.accelerator``.

    Returns:
        "cpu" for "auto" where Lightning would take an Apple GPU that fails; otherwise what it was.
    """
    if asked != "auto" or not torch.backends.mps.is_available():
        return asked
    wrong = what_is_wrong_on(torch.device("mps"))
    if wrong is None:
        return asked
    logger.info("trainer.accelerator auto is cpu here, for Apple's GPU fails: %s", wrong)
    return "cpu"


def what_is_wrong_on(device: torch.device) -> str | None:
    """Run a small encoder forward and backward, and compare with a CPU.

    Args:
        device: To try.

    Returns:
        What differs or failed, in one sentence; None if nothing did.
    """
    with torch.random.fork_rng(devices=[]):  # a run's numbers do not depend on this
        torch.manual_seed(0)
        encoder = VideoMamba(32, 2, num_frames=2, image_size=32, patch_size=16, position_std=1.0)
        video = torch.randn(2, 2, 3, 32, 32)
    expected = _results(encoder, video)
    try:
        found = _results(encoder.to(device), video.to(device))
    except RuntimeError as error:  # an operator that is missing raises one, too
        return " ".join(str(error).split())
    for name, right in expected.items():
        difference = float((found[name] - right).abs().max() / right.abs().max())
        if not difference <= _TOLERANCE:
            return f"{name} of a small encoder differ from a CPU's by {difference:.1e}"
    return None


def _results(encoder: VideoMamba, video: Tensor) -> dict[str, Tensor]:
    features = encoder.eval()(video)
    encoder.zero_grad()
    (features.tokens.square().mean() + features.pooled.square().mean()).backward()
    gradients = {
        f"gradients of {name}": parameter.grad
        for name, parameter in encoder.named_parameters()
        if parameter.grad is not None
    }
    results = {"tokens": features.tokens, "pooled features": features.pooled} | gradients
    return {name: tensor.detach().cpu().double() for name, tensor in results.items()}
