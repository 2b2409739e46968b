"""Videos of any length in one pass: exact, in bounded memory, layer by layer.

One hour at one frame per second and 224 pixels is 705,601 tokens of VideoMamba. Memory holds the
residual stream and the output of one direction of one layer (see ``vmm.models.pieces``), in RAM or
in files that are mapped into memory; time grows with the length. So it is for every scan order. A
``FrameMamba`` sees its frames a few at a time; its blocks over time take pooled frames at once, and
tokens in the same way. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vmm.models.frame_mamba import FrameMamba
from vmm.models.layers import pool_tokens, rms_norm
from vmm.models.mamba import BiMambaBlock
from vmm.models.pieces import add_in_pieces
from vmm.models.scan_order import num_scans, temporal_path
from vmm.models.video_encoder import VideoEncoder
from vmm.models.videomamba import VideoMamba

_STEPS = 16
"""Steps of time that are embedded, or pooled, at once."""


class LongVideoFeatures(NamedTuple):
    """What the encoder gives for one video."""

    pooled: Tensor
    """(P, D) of the whole video, as ``VideoFeatures.pooled`` without ``keep_temporal``."""
    per_step: Tensor
    """(T / tubelet_size, D), each step pooled apart, as with ``keep_temporal``; one row for the
    pooling ``cls``."""
    tokens: Tensor | None = None
    """(patches of all steps, D), as ``VideoFeatures.tokens``; on request only."""


def takes_long_videos(encoder: VideoEncoder) -> bool:
    """Tell whether ``encode_long_video`` knows how."""
    return isinstance(encoder, VideoMamba | FrameMamba)


@torch.no_grad()
def encode_long_video(
    encoder: VideoEncoder,
    frames: Iterable[Tensor],
    num_frames: int,
    *,
    dtype: torch.dtype = torch.float32,
    folder: str | Path | None = None,
    progress: bool = False,
    keep_tokens: bool = False,
) -> LongVideoFeatures:
    """Encode one video as the encoder would in one pass, up to rounding.

    Args:
        encoder: The encoder, in evaluation mode.
        frames: The normalised frames in portions (t, C, H, W) of any size, so that they need not
            all be in memory; t is a multiple of the tubelet size.
        num_frames: Frames T in all; the temporal position table is stretched over them.
        dtype: Of the residual stream; bfloat16 halves the memory and costs accuracy.
        folder: Keep the large tensors in files there, removed in the end, instead of in RAM.
        progress: Show a progress bar on stderr.
        keep_tokens: Also return all tokens, which need as much memory again as the residual stream.

    Returns:
        Features of the whole video and of every step, float32, on the encoder's device.

    Raises:
        ValueError: If the frames are not as many as announced, their sizes do not fit, or the
            encoder is another one.
    """
    if isinstance(encoder, FrameMamba):
        device = next(encoder.parameters()).device
        with _memory(folder, dtype, device) as allocate:
            return _frames_over_time(encoder, frames, num_frames, allocate, progress, keep_tokens)
    if not isinstance(encoder, VideoMamba):
        raise ValueError(f"{type(encoder).__name__} takes no long videos in one pass; cut them")
    device = encoder.cls_token.device
    steps = num_frames // encoder.tubelet_size
    with _memory(folder, dtype, device) as allocate:
        residual = _embedded(encoder, frames, steps, allocate)
        length = residual.shape[1]
        others = allocate("others", (1, length, encoder.inner_dim))
        path = temporal_path(steps, (length - 1) // steps, device)
        scans = [order.scans(path, "spatial") for order in encoder.block_orders]
        with tqdm(
            total=length * sum(map(num_scans, scans)),
            unit="token",
            unit_scale=True,
            desc=f"{num_frames} frames",
            disable=not progress,
        ) as bar:
            for layer, done in zip(encoder.layers, scans, strict=True):
                assert isinstance(layer, BiMambaBlock)
                add_in_pieces(layer, residual, others, encoder.piece_length, bar.update, done)
        return _pooled(encoder, residual, steps, keep_tokens)


def _frames_over_time(
    encoder: FrameMamba,
    frames: Iterable[Tensor],
    num_frames: int,
    allocate: _Allocate,
    progress: bool,
    keep_tokens: bool,
) -> LongVideoFeatures:
    """Encode a video, frame by frame and then over time."""
    weight = next(encoder.parameters())
    over_tokens = encoder.time_over == "tokens"
    pooled: list[Tensor] = []
    tokens: list[Tensor] = []
    sequence, size, done = None, torch.Size(), 0

    def finish(x: Tensor) -> None:
        patches, one = encoder.tower.pool(x)
        pooled.append(one.float())
        if keep_tokens:
            tokens.append(patches.flatten(0, 1).float())

    with tqdm(total=num_frames, unit="frame", disable=not progress) as bar:
        for part in _parts(frames, _STEPS):
            size = size or part.shape[1:]
            if part.shape[1:] != size or done + len(part) > num_frames:
                raise _not_following(part, done, num_frames, size)
            x = encoder.see(part.to(weight.device))
            if over_tokens:
                if sequence is None:
                    sequence = allocate("residual", (num_frames, *x.shape[1:]))
                sequence[done : done + len(x)] = x
            else:
                finish(x)
            done += len(part)
            bar.update(len(part))
    if done != num_frames:
        raise _too_few(done, num_frames)
    if sequence is not None:
        joined = sequence.view(1, -1, encoder.embed_dim)
        others = allocate("others", (1, joined.shape[1], encoder.inner_dim))
        for block in encoder.time_blocks:
            assert isinstance(block, BiMambaBlock)
            add_in_pieces(block, joined, others, encoder.piece_length)
        for x in torch.split(sequence, _STEPS):
            finish(x.to(weight.dtype))
    per_step = torch.cat(pooled)
    if not over_tokens:
        per_step = encoder.over_time(per_step[None])[0]
    kept = torch.cat(tokens) if keep_tokens else None
    return LongVideoFeatures(per_step.mean(0, keepdim=True), per_step, kept)


class _Allocate:
    """Makes large tensors in RAM, or in files of a folder."""

    def __init__(self, folder: Path | None, dtype: torch.dtype, device: torch.device) -> None:
        self._folder, self._dtype, self._device = folder, dtype, device

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self._folder is None:
            return torch.empty(shape, dtype=self._dtype, device=self._device)
        size = torch.Size(shape).numel()
        path = str(self._folder / name)
        return torch.from_file(path, shared=True, size=size, dtype=self._dtype).view(shape)


@contextlib.contextmanager
def _memory(
    folder: str | Path | None, dtype: torch.dtype, device: torch.device
) -> Iterator[_Allocate]:
    if folder is None:
        yield _Allocate(None, dtype, device)
        return
    if device.type != "cpu":
        raise ValueError(f"files can hold tensors of the CPU only, the encoder is on {device.type}")
    with tempfile.TemporaryDirectory(prefix="vmm-", dir=folder) as inner:
        yield _Allocate(Path(inner), dtype, device)


def _embedded(
    encoder: VideoMamba, frames: Iterable[Tensor], steps: int, allocate: _Allocate
) -> Tensor:
    """Return the token sequence (1, 1 + steps * N, D) of all frames."""
    tubelet, patch = encoder.tubelet_size, encoder.patch_size
    residual: Tensor | None = None
    size, done = torch.Size(), 0
    for part in _parts(frames, _STEPS * tubelet):
        grid = part.shape[-2] // patch, part.shape[-1] // patch
        if residual is None:
            size = part.shape[1:]
            residual = allocate("residual", (1, 1 + steps * math.prod(grid), encoder.embed_dim))
            residual[:, :1] = encoder.embed_class(grid)
        end = done + len(part) // tubelet
        if part.shape[1:] != size or end > steps:
            raise _not_following(part, done * tubelet, steps * tubelet, size)
        tokens = encoder.embed_steps(part.unsqueeze(0).to(residual.device), done, steps)
        span = slice(1 + done * math.prod(grid), 1 + end * math.prod(grid))
        residual[:, span] = tokens.flatten(1, 2)
        done = end
    if residual is None or done != steps:
        raise _too_few(done * tubelet, steps * tubelet)
    return residual


def _not_following(part: Tensor, done: int, num_frames: int, size: torch.Size) -> ValueError:
    return ValueError(
        f"frames {tuple(part.shape)} do not follow {done} of {num_frames} frames of "
        f"{tuple(size)}; give num_frames frames, all of one size"
    )


def _too_few(done: int, num_frames: int) -> ValueError:
    return ValueError(f"got {done} frames where num_frames is {num_frames}; make them equal")


def _parts(frames: Iterable[Tensor], most: int) -> Iterator[Tensor]:
    for portion in frames:
        for i in range(0, len(portion), most):
            yield portion[i : i + most]


def _pooled(
    encoder: VideoMamba, residual: Tensor, steps: int, keep_tokens: bool
) -> LongVideoFeatures:
    """Normalise and pool (1, 1 + steps * N, D), a few steps at a time."""
    patches = (residual.shape[1] - 1) // steps

    def normalised(x: Tensor) -> Tensor:
        return rms_norm(encoder.norm, x.float())

    cls = normalised(residual[:, :1])
    means, tokens = [], []
    for i in range(1, residual.shape[1], _STEPS * patches):
        part = normalised(residual[:, i : i + _STEPS * patches])
        if keep_tokens:
            tokens.append(part[0])
        means.append(part.reshape(1, -1, patches, part.shape[-1]).mean(2))
    per_step = torch.cat(means, 1)  # every step has as many patches: means of means are right
    whole, apart = (
        encoder.pool_norm(pool_tokens(cls, per_step, encoder.pooling, n)) for n in (1, steps)
    )
    kept = torch.cat(tokens) if keep_tokens else None
    return LongVideoFeatures(whole[0].float(), apart[0].float(), kept)
