"""What a model costs, found without weights and without data.

Forward runs on tensors that have shapes and no numbers (PyTorch's ``FakeTensorMode``), so a model
built on the device ``meta`` will do, however large. Shape legend: see ``vmm.types``; E inner width
of a mixer, S its states per channel, K the taps of its convolution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from vmm.models.answer import AnswerModel
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.ops.conv import interface as conv
from vmm.ops.conv import op as _conv_op  # noqa: F401  # registers the operator
from vmm.ops.scan import bidirectional as _pair_op  # noqa: F401
from vmm.ops.scan import interface as scan
from vmm.ops.scan import op as _scan_op  # noqa: F401
from vmm.types import TextTokens

_PER_NORM = 5
"""Operations that fvcore counts for each element of a norm."""
_PER_STATE = 9
"""Operations of a scan for each channel, state and token, as Mamba's authors count."""


class Cost(NamedTuple):
    """Of one forward pass."""

    multiply_adds: int
    """Of matrix products, attention, convolutions and scans."""
    kept: int
    """Bytes that backward needs, parameters not counted."""


class Like(NamedTuple):
    """What an input looks like."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


class _Call(nn.Module):
    """A function of a module, as a module."""

    def __init__(self, module: nn.Module, function: Callable[..., object]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self.module, *inputs)


def measure(
    module: nn.Module,
    function: Callable[..., object],
    inputs: Sequence[Like],
    weights: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> Cost:
    """Count what a forward pass on a CPU does and keeps.

    Args:
        module: On any device, ``meta`` included; in training or evaluation mode.
        function: Called with the module and the inputs.
        inputs: What the inputs look like.
        weights: Type of the parameters.
        autocast: Type that autocast computes in; None = no autocast.
    """
    storages: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # held, so that none takes the place of another
        return tensor

    call = _Call(module, function)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with FakeTensorMode(allow_non_fake_inputs=True), _compiled_kernels(), _attention_in_parts():
        own = {**dict(call.named_parameters()), **dict(call.named_buffers())}
        parts = {name: _like(tensor, weights) for name, tensor in own.items()}
        given = tuple(torch.empty(one.shape, dtype=one.dtype) for one in inputs)
        with (
            torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            counter,
        ):
            functional_call(call, parts, given)
        for part in parts.values():
            storages.pop(part.untyped_storage()._cdata, None)
        kept = sum(int(storage.nbytes()) for storage in storages.values())
    return Cost(counter.get_total_flops() // 2, kept)


def text_side(
    model: VideoTextModel,
    batch: int,
    visible: int,
    matching: bool,
    guessing: bool,
    types: dict[str, Any],
) -> Cost:
    """Measure captions that look at videos.

    Args:
        model: On any device, in training mode.
        batch: Captions, and videos.
        visible: Tokens of a video.
        matching: Whether there are wrong captions and wrong videos beside the true pairs.
        guessing: Whether there are captions with hidden words, too.
        types: ``weights`` and ``autocast`` of ``measure``.
    """
    text = model.text_encoder
    tokens = Like((batch, text.max_words), torch.int64)

    def step(module: VideoTextModel, words: Tensor, video: Tensor) -> object:
        fuse, mask = module.fusion.fuse, torch.ones_like(words)
        kinds = 1 + guessing
        read = module.encode_text(words.repeat(kinds, 1), mask.repeat(kinds, 1)).tokens
        plain, *with_gaps = read.chunk(kinds)
        vision = module.fusion.project_vision(video)
        seen = [fuse(states, mask, vision) for states in with_gaps]
        if matching:
            seen.append(fuse(plain.repeat(2, 1, 1), mask.repeat(2, 1), vision))
            seen.append(fuse(plain, mask, vision[torch.arange(len(words))]))
        return seen

    width = model.video_encoder.embed_dim
    return measure(model, step, [tokens, Like((batch, visible, width))], **types)


def answer_side(model: AnswerModel, batch: int, visible: int, types: dict[str, Any]) -> Cost:
    """Measure questions about videos with an answer each, as long as captions may be.

    Args:
        model: On any device, in training mode.
        batch: Questions, and videos.
        visible: Tokens of a video.
        types: ``weights`` and ``autocast`` of ``measure``.
    """
    tokens = Like((batch, model.text_encoder.max_words), torch.int64)

    def step(module: AnswerModel, words: Tensor, video: Tensor) -> object:
        vision = module.text_encoder.project_vision(video)
        read = module.read(TextTokens(words, torch.ones_like(words)), vision)
        return module.answer_decoder(words, read)

    width = model.video_encoder.embed_dim
    return measure(model, step, [tokens, Like((batch, visible, width))], **types)


def published_multiply_adds(encoder: VideoMamba, num_frames: int, image_size: int) -> int:
    """Count one view as the published figures do.

    They count a mixer's two large projections, the patch embedding, and five operations for each
    element of a norm, but not what fvcore cannot see inside of the fused operator: convolutions,
    the small projections, the scan. Users noticed (VideoMamba's issues 18, 22, 89 and 98).

    Args:
        encoder: With any weights, on any device.
        num_frames: Of the view.
        image_size: Side of its frames, pixels.
    """
    width, patch = encoder.embed_dim, encoder.patch_size
    patches = num_frames // encoder.tubelet_size * (image_size // patch) ** 2
    blocks = 3 * width * encoder.inner_dim * len(encoder.layers) * (1 + patches)
    embedding = 3 * encoder.tubelet_size * patch**2 * width * patches
    return blocks + embedding + _norms(encoder, 1 + patches)


def all_multiply_adds(encoder: nn.Module, video: Like) -> int:
    """Count one view, all of it; norms only of a ``VideoMamba``, as the published figures do.

    Args:
        encoder: A ``VideoEncoder``.
        video: (1, T, C, H, W).
    """
    counted = measure(encoder, lambda module, clip: module(clip), [video]).multiply_adds
    if not isinstance(encoder, VideoMamba):
        return counted
    _, frames, _, height, width = video.shape
    patches = frames // encoder.tubelet_size * (height // encoder.patch_size)
    return counted + _norms(encoder, 1 + patches * (width // encoder.patch_size))


def _norms(encoder: VideoMamba, length: int) -> int:
    return _PER_NORM * encoder.embed_dim * (len(encoder.layers) + 1) * length


def _like(tensor: Tensor, weights: torch.dtype) -> Tensor:
    dtype = weights if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, requires_grad=tensor.requires_grad)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Say what vmm's operators count: twice the multiply-adds, as PyTorch counts.

    The formulas get shapes in place of tensors.
    """

    def states(u: torch.Size, A: torch.Size) -> int:
        return 2 * _PER_STATE * u.numel() * A[1]

    def both_ways(*arguments: Any, **rest: Any) -> int:
        inputs = scan.PairInputs(*arguments[: len(scan.PairInputs._fields)])
        shapes: Any = inputs
        return states(shapes.u, shapes.A) + states(shapes.u_reverse, shapes.A_reverse)

    def one_way(*arguments: Any, **rest: Any) -> int:
        shapes: Any = scan.ScanInputs(*arguments[: len(scan.ScanInputs._fields)])
        return states(shapes.u, shapes.A)

    def taps(*arguments: Any, **rest: Any) -> int:
        shapes: Any = conv.ConvInputs(*arguments[: len(conv.ConvInputs._fields)])
        weights = [w for w in (shapes.weight, shapes.weight_reverse) if w is not None]
        return sum(2 * shapes.x.numel() * weight[1] for weight in weights)

    ops = torch.ops.vmm
    return {
        ops.bidirectional_scan: both_ways,
        ops.selective_scan: one_way,
        ops.causal_conv1d: taps,
    }


@contextmanager
def _attention_in_parts() -> Iterator[None]:
    """Keep PyTorch from doing attention in one operator, in which nothing is counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _compiled_kernels() -> Iterator[None]:
    """Take the backends that are one operator each, so that there is something to count."""
    variables = (scan.BACKEND_VARIABLE, conv.BACKEND_VARIABLE)
    before = {name: os.environ.pop(name, None) for name in variables}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if value is not None})
