"""What a probe reads: features of a video encoder, before any projection or head.

Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.models import (
    ClipEncoder,
    ClipVectors,
    OpenClipEncoder,
    describe_model,
    identity_of_weights,
    load_encoder,
)
from vmm.evaluation.probe.options import Options
from vmm.export.folder import read_folder
from vmm.hub import local_folder
from vmm.models.masked_student import MaskedStudent
from vmm.models.video_encoder import VideoEncoder
from vmm.models.weights import usual_types
from vmm.runs import build, load_model, trains

_VMM = "vmm:"
_OPEN_CLIP = "open_clip:"


class Backbone:
    """A video encoder of vmm: a clip is what it pools, and its tokens.

    Args:
        encoder: In evaluation mode, on the device to use.
        clip: How a video becomes its input.
        identity: See ``ClipEncoder.identity``.
        token_grid: See ``Options``.
    """

    def __init__(
        self, encoder: VideoEncoder, clip: ClipSettings, identity: dict[str, Any], token_grid: int
    ) -> None:
        self.name = type(encoder).__name__
        self.clip = clip
        self._encoder = encoder
        self._identity = identity
        self._grid = token_grid
        self._device = next(encoder.parameters()).device

    def identity(self) -> dict[str, Any]:
        """Say which model it is."""
        return self._identity

    def encode_videos(self, video: Tensor) -> ClipVectors:
        """Encode clips (B, T, C, H, W): (B, 1, D) and (B, L, D)."""
        features = self._encoder(video.to(self._device))
        return ClipVectors(features.pooled, self._coarse(features.tokens))

    def _coarse(self, tokens: Tensor) -> Tensor:
        """Take the means of regions of each frame's tokens."""
        side = self._encoder.image_size // self._encoder.patch_size
        if not 0 < self._grid < side:
            return tokens
        batch, length, width = tokens.shape
        squares = tokens.reshape(-1, side, side, width).permute(0, 3, 1, 2)
        means = F.adaptive_avg_pool2d(squares, self._grid).permute(0, 2, 3, 1)
        return means.reshape(batch, length // side**2 * self._grid**2, width)


class Subject(NamedTuple):
    """What is probed."""

    encoder: ClipEncoder
    control: ClipEncoder | None
    """The same with random weights; None = not wanted, or it cannot be made."""
    of_stage_1: bool = False
    """Whether it is of a run of stage 1."""


def open_subject(options: Options) -> Subject:
    """Load the model to probe, and make its control.

    Args:
        options: Its ``run`` may be one of any task; of a ``model`` that is none of vmm's, what it
            compares with texts is probed.

    Raises:
        ValueError: If it cannot be loaded.
    """
    if options.model is None:
        return _of_run(options)
    model = options.model
    if not isinstance(model, str):
        return Subject(model, None)
    if model.startswith(_VMM):
        return _of_folder(options, model.removeprefix(_VMM))
    encoder = load_encoder(model, options.num_frames, options.device, options.trust_remote_code)
    if not options.control or not model.startswith(_OPEN_CLIP):
        return Subject(encoder, None)
    name = model.removeprefix(_OPEN_CLIP).partition(":")[0]
    frames = encoder.clip.num_frames
    return Subject(
        encoder, _drawn(options, lambda: OpenClipEncoder(name, None, frames, options.device))
    )


def _of_run(options: Options) -> Subject:
    run = load_model(options.given_run(), VideoEncoder, options.checkpoint)  # type: ignore[type-abstract]
    clip = run.clip.with_frames(options.num_frames)
    name = type(run.model).__name__
    identity = describe_model(name, run.model, run.checkpoint.name, run.sha256)
    of_stage_1 = trains(run.config, MaskedStudent)
    return _subject(options, run.model, clip, identity, run.config, of_stage_1)


def _of_folder(options: Options, name: str) -> Subject:
    folder = local_folder(name)
    parts, fingerprint = read_folder(folder)
    encoder = parts.model.video_encoder
    identity = describe_model(type(encoder).__name__, encoder, folder.name, fingerprint)
    recipe = {"model": {"init_args": parts.settings}}
    return _subject(options, encoder, parts.clip.with_frames(options.num_frames), identity, recipe)


def _subject(
    options: Options,
    encoder: VideoEncoder,
    clip: ClipSettings,
    identity: dict[str, Any],
    recipe: dict[str, Any],
    of_stage_1: bool = False,
) -> Subject:
    """Put an encoder of vmm on its device, beside the one that its recipe makes."""
    grid = {"token_grid": options.token_grid}
    backbone = Backbone(encoder.to(options.device), clip, identity | grid, options.token_grid)
    if not options.control:
        return Subject(backbone, None, of_stage_1)

    def fresh() -> Backbone:
        with usual_types():
            other = build(recipe, VideoEncoder).eval()  # type: ignore[type-abstract]
        named = identity_of_weights(type(other).__name__, other, f"random, seed {options.seed}")
        return Backbone(other.to(options.device), clip, named | grid, options.token_grid)

    return Subject(backbone, _drawn(options, fresh), of_stage_1)


def _drawn(options: Options, make: Callable[[], ClipEncoder]) -> ClipEncoder:
    """Make a model whose weights are drawn by the seed, and leave other draws as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return make()
