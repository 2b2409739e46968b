"""Videos as people have them, to the frames that a model looks at.

A file or its content is decoded. Frames in memory are all frames of a video, at equal distances in
time, as NumPy, torchvision, torchcodec and decord give them: uint8, or floating from 0 to 1, with
the colours last or second. What ``VideoTextEncoder.load_videos`` made is marked as such
(``PreparedClip``); nothing else is taken for it, whatever its numbers are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmm.data.clips import load_frames
from vmm.data.faults import SampleError
from vmm.data.schema import RawSample
from vmm.data.transforms import ClipSettings, eval_transform


class PreparedClip(Tensor):
    """(T, C, H, W) float32, resized and normalised: what the model sees.

    Anything computed from it is a plain tensor again.
    """

    look: tuple[object, ...]
    """How its pixels were made."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


Video = str | Path | bytes | npt.NDArray[Any] | Tensor
"""A file, its content, all its frames, or what ``VideoTextEncoder.load_videos`` made of one."""


def prepared(clip: Tensor, settings: ClipSettings) -> PreparedClip:
    """Mark a clip (T, C, H, W) as one that was resized and normalised by these settings."""
    marked = clip.as_subclass(PreparedClip)
    marked.look = _look(settings)
    return marked


def _look(settings: ClipSettings) -> tuple[object, ...]:
    """Return what the pixels depend on; which frames they are of may differ from call to call."""
    rule = settings
    shape = rule.image_size, rule.fit, rule.crop_pct, rule.interpolation, rule.antialias
    return *shape, tuple(rule.mean), tuple(rule.std)


def name_of(video: Video, number: int) -> str:
    """Return what messages call a video: its file, or its number in the list."""
    return str(video) if isinstance(video, str | Path) else f"video {number}"


def load_clip(video: Video, number: int, clip: ClipSettings) -> PreparedClip:
    """Read a video as the model sees it.

    Args:
        video: In any of the forms.
        number: Its place in the list, for messages.
        clip: Which frames, and how they become input.

    Raises:
        ValueError: If it cannot be read or is no video, with its name.
    """
    name = name_of(video, number)
    if isinstance(video, PreparedClip):
        if video.look != _look(clip):
            raise ValueError(
                f"{name} was prepared for another encoder, {video.look}, not {_look(clip)}; "
                "use `load_videos` of this one"
            )
        return video
    if isinstance(video, np.ndarray | Tensor):
        if clip.sampling == "fps":
            raise ValueError(f"{name} is frames in memory, which have no times; leave fps out")
        frames = _checked(video, name)
        chosen = clip.choose(np.arange(len(frames), dtype=np.float64))
        return prepared(eval_transform(_as_bytes(frames[chosen]), clip), clip)
    if not isinstance(video, bytes | str | Path):
        raise ValueError(
            f"{name} is a {type(video).__name__}; give a file's path or content, or all frames in "
            "one array"
        )
    if not isinstance(video, bytes):
        path = Path(video)
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading might never end
            raise ValueError(f"cannot read {name}: it is a pipe or device, no file")
    try:
        data = video if isinstance(video, bytes) else path.read_bytes()
        pixels = load_frames(RawSample(name, number, "", data, [], {}), "video", clip)
    except (OSError, SampleError) as error:
        raise ValueError(f"cannot read {name}: {error}") from error
    return prepared(eval_transform(pixels, clip), clip)


def _checked(video: npt.NDArray[Any] | Tensor, name: str) -> Tensor:
    """Return frames as (T, C, H, W) on the CPU, of the type that they have."""
    what = f"{name} is {tuple(video.shape)} {video.dtype}"
    wanted = "give frames as (T, H, W, 3) or (T, 3, H, W), uint8 or floating from 0 to 1"
    if isinstance(video, np.ndarray):  # PyTorch has no other strides and byte orders
        video = np.ascontiguousarray(video, video.dtype.newbyteorder("="))
    try:
        frames = torch.as_tensor(video).detach().cpu().to_dense()
    except (TypeError, ValueError, NotImplementedError) as error:
        # Types and strides that PyTorch does not have, tensors that hold no numbers.
        raise ValueError(f"{what}; {wanted}") from error
    if frames.dim() == 5:
        raise ValueError(f"{what}, a batch; give a list of its videos")
    if frames.dim() != 4 or 0 in frames.shape:
        raise ValueError(f"{what}; {wanted}")
    if frames.is_floating_point():
        low, high = (float(x) for x in frames.aminmax())
        if not (low >= 0 and high <= 1):  # also if one is NaN
            raise ValueError(
                f"{what} with numbers from {low:.3g} to {high:.3g}; floating frames lie in 0 to 1, "
                "those in 0 to 255 are uint8, and normalised ones are taken only as `load_videos` "
                "gave them"
            )
    elif frames.dtype != torch.uint8:
        raise ValueError(f"{what}; {wanted}")
    second, last = frames.shape[1] == 3, frames.shape[3] == 3
    if second and last:
        raise ValueError(f"{what}: its colours may be second or last; give frames of another width")
    if last:
        return frames.permute(0, 3, 1, 2)
    if not second:
        hint = wanted
        if frames.shape[0] == 3:
            hint = "this looks like (C, T, H, W): transpose the first two dimensions"
        raise ValueError(f"{what}; {hint}")
    return frames


def _as_bytes(frames: Tensor) -> Tensor:
    """Turn numbers from 0 to 1 into the bytes that a file would have given."""
    return frames if frames.dtype == torch.uint8 else (frames.double() * 255).round().byte()
