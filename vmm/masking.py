"""Masks: which video tokens an encoder never sees, which words a model must guess.

Pure functions of tensors and of numbers that chance gives (``vmm.drawing``). Video masks are
``dropped`` (B, 1 + T * N) bool, True = hidden, the class token (never hidden) first, then
frame-major patches; the functions in ``MASKS`` leave the class token out. Kinds and ablations:
VideoMamba (arXiv 2403.06977), section 4.3. Shape legend: see ``vmm.types``; R rows and W columns of
the patch grid, N = R * W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.drawing import Uniform, choose


class Patches(NamedTuple):
    """The patches of a batch of clips, some of which a mask hides."""

    num_clips: int
    """B."""
    num_frames: int
    """T."""
    rows: int
    """R, of a frame."""
    columns: int
    """W."""
    attention: Tensor | None = None
    """(B, T, N) of the teacher, non-negative; rows need not sum to one."""


def random_mask(patches: Patches, ratio: float, uniform: Uniform) -> Tensor:
    """Hide patches anywhere in the clip, ``int(ratio * T * N)`` of them: (B, T * N) bool."""
    total = patches.num_frames * patches.rows * patches.columns
    return _hide(uniform(total), _count(total, ratio))


def tube_mask(patches: Patches, ratio: float, uniform: Uniform) -> Tensor:
    """Hide the same ``int(ratio * N)`` places in every frame: (B, T * N) bool."""
    places = patches.rows * patches.columns
    hidden = _hide(uniform(places), _count(places, ratio))
    return hidden.repeat(1, patches.num_frames)


def frame_row_mask(patches: Patches, ratio: float, uniform: Uniform) -> Tensor:
    """Hide ``int(ratio * R)`` whole rows in every frame, drawn anew for each: (B, T * N) bool."""
    clips, frames, rows, columns, _ = patches
    hidden = _hide(uniform(frames * rows).view(-1, rows), _count(rows, ratio))
    return hidden.view(clips, -1).repeat_interleave(columns, dim=1)


def clip_row_mask(patches: Patches, ratio: float, uniform: Uniform) -> Tensor:
    """Hide ``T * int(ratio * R)`` of all rows; frames may differ in number: (B, T * N) bool."""
    _, frames, rows, columns, _ = patches
    hidden = _hide(uniform(frames * rows), frames * _count(rows, ratio))
    return hidden.repeat_interleave(columns, dim=1)


def attention_guided_mask(patches: Patches, ratio: float, uniform: Uniform) -> Tensor:
    """Keep ``N - int(ratio * N)`` patches of each frame, drawn by the teacher's attention.

    Drawn without replacement, each frame on its own: (B, T * N) bool. What the teacher looks at is
    more likely to stay visible.
    """
    assert patches.attention is not None
    # Low-precision attention underflows; the floor leaves enough places to draw from.
    weights = patches.attention.detach().float().flatten(0, 1).clamp_min(1e-12)
    frames, places = weights.shape
    numbers = uniform(frames // patches.num_clips * places).view(frames, places)
    visible = choose(weights, places - _count(places, ratio), numbers)
    hidden = torch.ones_like(weights, dtype=torch.bool).scatter_(1, visible, False)
    return hidden.view(patches.num_clips, -1)


class Mask(NamedTuple):
    """A way to hide patches."""

    hide: Callable[[Patches, float, Uniform], Tensor] | None
    """Makes (B, T * N) bool, True = hidden, of a ratio in [0, 1); None hides nothing."""
    guided: bool = False
    """Whether it needs the teacher's attention."""
    same_places: bool = False
    """Whether all frames of a clip show the same places, so that frames can be compared."""


MaskKind = Literal["none", "attention", "random", "tube", "frame_row", "clip_row"]
MASKS: dict[MaskKind, Mask] = {
    "none": Mask(None),
    "attention": Mask(attention_guided_mask, guided=True),
    "random": Mask(random_mask),
    "tube": Mask(tube_mask, same_places=True),
    "frame_row": Mask(frame_row_mask),
    "clip_row": Mask(clip_row_mask),
}


@dataclass(frozen=True)
class MaskSettings:
    """Which tokens of a clip stay hidden during training.

    Attributes:
        kind: ``attention`` keeps patches that the teacher looks at (drawn by its attention),
            the others ignore the content.
        ratio: Share of the patches that is hidden.
    """

    kind: MaskKind = "none"
    ratio: float = 0.8

    def __post_init__(self) -> None:
        """Check the ratio."""
        if not 0 <= self.ratio < 1:
            raise ValueError(f"mask ratio {self.ratio} is not in [0, 1)")


def draw_mask(
    kind: MaskKind,
    patches: Patches,
    ratio: float,
    uniform: Uniform,
    device: torch.device | str = "cpu",
) -> Tensor | None:
    """Draw which tokens stay hidden.

    Args:
        kind: How they are chosen.
        patches: Among which.
        ratio: Share of hidden ones, in [0, 1).
        uniform: What chance says, for each clip.
        device: Where the mask is wanted.

    Returns:
        ``dropped`` (B, 1 + T * N) bool; None: nothing stays hidden.

    Raises:
        ValueError: If the ratio is out of range.
    """
    hide = MASKS[kind].hide
    if hide is None:
        return None
    return F.pad(hide(patches, ratio, uniform), (1, 0), value=False).to(device)


def gather_visible(x: Tensor, dropped: Tensor) -> Tensor:
    """Close the gaps: keep the tokens that are not dropped, in their order.

    Args:
        x: (B, L, ...).
        dropped: (B, L) bool, as many True in every row.

    Returns:
        (B, visible, ...).

    Raises:
        ValueError: If the shapes differ or rows hide unequal numbers.
    """
    if x.shape[:2] != dropped.shape:
        raise ValueError(
            f"a mask of shape {tuple(dropped.shape)} does not fit tokens of shape "
            f"{tuple(x.shape)}; draw it for this number of frames and patches"
        )
    kept = x.flatten(0, 1).index_select(0, visible_rows(dropped))
    return kept.view(len(x), -1, *x.shape[2:])


def visible_rows(dropped: Tensor) -> Tensor:
    """Number what is not dropped, (B, L) bool, as rows of all B * L: (B * visible,) int64.

    Raises:
        ValueError: If rows hide unequal numbers.
    """
    visible = ~dropped
    counts = visible.sum(1)
    if (counts != counts[0]).any():
        raise ValueError(
            f"rows of the mask leave {int(counts.min())} to {int(counts.max())} tokens visible; "
            "draw a mask that hides equally many in every row"
        )
    return visible.flatten().nonzero().squeeze(1)


class MlmDraws(NamedTuple):
    """Random decisions of masked language modelling, (B, S) each."""

    masked: Tensor
    """bool: hide this word, if it is one that may be hidden."""
    replaced: Tensor
    """bool: hide it behind the mask token."""
    random: Tensor
    """bool: if not, put a random word in its place; otherwise it stays."""
    words: Tensor
    """int64: that random word."""


IGNORED = -100
"""Label of a word that is not to be guessed."""


class MaskedWords(NamedTuple):
    """Captions with words to guess."""

    input_ids: Tensor
    """(B, S) int64."""
    labels: Tensor
    """(B, S) int64: the original word where it is to be guessed, ``IGNORED`` elsewhere."""


def mlm_mask(
    input_ids: Tensor,
    uniform: Uniform,
    *,
    pad_id: int,
    cls_id: int,
    mask_id: int,
    vocab_size: int,
    probability: float = 0.5,
) -> MaskedWords:
    """Hide words: 80 % behind the mask token, 10 % behind a random word, 10 % stay (BERT, 3.1).

    Args:
        input_ids: (B, S) int64.
        uniform: What chance says, for each caption.
        pad_id: Padding, never hidden.
        cls_id: First token, never hidden. The separator may be, as published.
        mask_id: The mask token.
        vocab_size: Random words come from the whole vocabulary.
        probability: Share of hidden words; VideoMamba hides half of them.
    """
    numbers = uniform(4 * input_ids.shape[1]).view(*input_ids.shape, 4).to(input_ids.device)
    hide, replace, swap, word = numbers.unbind(-1)
    words = (word.double() * vocab_size).long()  # in float32 the last could become vocab_size
    draws = MlmDraws(hide < probability, replace < 0.8, swap < 0.5, words)
    return apply_mlm_draws(input_ids, draws, pad_id=pad_id, cls_id=cls_id, mask_id=mask_id)


def apply_mlm_draws(
    input_ids: Tensor, draws: MlmDraws, *, pad_id: int, cls_id: int, mask_id: int
) -> MaskedWords:
    """The deterministic part of ``mlm_mask``, for (B, S) int64."""
    hidden = draws.masked & (input_ids != pad_id) & (input_ids != cls_id)
    labels = input_ids.where(hidden, IGNORED)
    substitute = torch.where(draws.random, draws.words, input_ids)
    substitute = substitute.masked_fill(draws.replaced, mask_id)
    return MaskedWords(torch.where(hidden, substitute, input_ids), labels)


def _count(total: int, ratio: float) -> int:
    """How many of ``total`` a ratio hides: rounded down, as published."""
    if not 0 <= ratio < 1:
        raise ValueError(f"mask ratio {ratio} is not in [0, 1)")
    return int(total * ratio)


def _hide(numbers: Tensor, hidden: int) -> Tensor:
    """Hide ``hidden`` columns of each row of (R, C) numbers, uniformly: (R, C) bool."""
    return numbers.argsort(1) < hidden
