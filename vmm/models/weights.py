"""Weights into a module, every key accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class KeyReport(NamedTuple):
    """What became of every key of a file and of a module."""

    loaded: list[str]
    """Keys of the module that got their values from the file."""
    new: dict[str, str]
    """Keys of the module that the file lacks, with the reason why that is right."""
    dropped: dict[str, str]
    """Keys of the file that have no place in the module, with the reason why that is right."""

    def __str__(self) -> str:
        """One line for the log."""
        reasons = sorted({*self.new.values(), *self.dropped.values()})
        counts = f"{len(self.loaded)} loaded, {len(self.new)} new, {len(self.dropped)} dropped"
        return f"{counts} ({'; '.join(reasons)})" if reasons else counts


@contextmanager
def usual_types() -> Iterator[None]:
    """Make new modules in float32 on the CPU, whatever type and device the caller set for its own.

    The numbers of a file have a type; a model built for them in another one would not be the same
    model, and on the device "meta" it would have no numbers at all.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


def key_problems(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Say why weights are not those of a module, key by key; nothing if they are.

    Both may have any shape.
    """
    problems = [f"{key} is missing in the file" for key in own if key not in state]
    problems += [f"{key} is not known here" for key in state if key not in own]
    problems += [
        f"{key} {problem}"
        for key, value in state.items()
        if key in own and (problem := _misfit(value, own[key])) is not None
    ]
    return problems


def shorten(problems: list[str], shown: int = 8) -> str:
    """List the first of many problems, and say how many there are."""
    listed = "; ".join(problems[:shown]) + (" ..." if len(problems) > shown else "")
    return f"{listed} ({len(problems)} in all)"


def load_accounted(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    new: Mapping[str, str],
    dropped: Mapping[str, str],
) -> KeyReport:
    """Load a state dict and explain every difference, or refuse.

    Args:
        module: Gets the weights.
        state: Its keys are those of the module as far as they mean the same;
            tensors of any shape, which must be the module's.
        source: Where the weights come from, for messages.
        new: Regular expressions of keys that the source may lack, with the reason.
        dropped: Regular expressions of keys that the module may lack, with the reason.

    Returns:
        The account.

    Raises:
        ValueError: If a key is unexplained, a shape or kind of numbers differs or a number is not
            finite; the module is then unchanged.
    """
    own = module.state_dict()
    missing = {key: _reason(key, new) for key in own if key not in state}
    surplus = {key: _reason(key, dropped) for key in state if key not in own}
    loaded = {key: value for key, value in state.items() if key in own}
    explained = {key for key, why in (missing | surplus).items() if why}
    problems = key_problems(
        {key: value for key, value in state.items() if key not in explained},
        {key: value for key, value in own.items() if key not in explained},
    )
    if problems:
        raise ValueError(
            f"{source} does not fit: {shorten(problems)}; name a file of the same architecture"
        )
    module.load_state_dict(loaded, strict=False)
    return KeyReport(list(loaded), missing, surplus)


def _misfit(value: Tensor, wanted: Tensor) -> str | None:
    """Say why a tensor cannot take the place of another one, or return None."""
    single = value.ndim == 0 and wanted.shape == (1,)  # as the temperature was, and is
    if value.shape != wanted.shape and not single:
        return f"has shape {tuple(value.shape)}, wanted {tuple(wanted.shape)}"
    if value.is_floating_point() != wanted.is_floating_point():
        return f"is of type {value.dtype}, wanted {wanted.dtype}"
    return _no_numbers(value)


def _no_numbers(value: Tensor) -> str | None:
    """Say how many numbers of a tensor are none, or return None if all are."""
    if not value.is_floating_point():
        return None
    odd = value.numel() - int(value.float().isfinite().sum())  # small types know no isfinite
    return f"holds {odd} NaN or infinite numbers of {value.numel()}" if odd else None


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are no numbers.

    Args:
        state: The weights, of any shape.
        source: Where they come from, for the message.

    Raises:
        ValueError: With the names of the broken ones.
    """
    problems = [f"{k} {why}" for k, value in state.items() if (why := _no_numbers(value))]
    if problems:
        listed = "; ".join(problems[:8]) + (" ..." if len(problems) > 8 else "")
        raise ValueError(
            f"{source}: {listed} ({len(problems)} in all); take a checkpoint from before the "
            "training broke"
        )


def _reason(key: str, table: Mapping[str, str]) -> str:
    return next((why for pattern, why in table.items() if re.search(pattern, key)), "")
