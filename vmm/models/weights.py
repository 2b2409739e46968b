"""Weight files from elsewhere: read without running code in them, account for every key."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model", "module")


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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or PyTorch file, out of the usual wrappers.

    Raises:
        ValueError: If the file is missing, broken, or holds more than plain data.
    """
    if not path.is_file():
        raise ValueError(f"no weight file {path}; check the path, or download the file first")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a weight file that is safe to read; save its state dict as "
            f".safetensors or with torch.save. {error}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


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
        state: Its keys are those of the module as far as they mean the same.
        source: Where the weights come from, for messages.
        new: Regular expressions of keys that the source may lack, with the reason.
        dropped: Regular expressions of keys that the module may lack, with the reason.

    Returns:
        The account.

    Raises:
        ValueError: If a key is unexplained or a shape differs; the module is then unchanged.
    """
    own = module.state_dict()
    missing = {key: _reason(key, new) for key in own if key not in state}
    surplus = {key: _reason(key, dropped) for key in state if key not in own}
    loaded = {key: value for key, value in state.items() if key in own}
    problems = [f"{key} is missing in the file" for key, why in missing.items() if not why]
    problems += [f"{key} is not known here" for key, why in surplus.items() if not why]
    problems += [
        f"{key} has shape {tuple(value.shape)}, wanted {tuple(own[key].shape)}"
        for key, value in loaded.items()
        if value.shape != own[key].shape
    ]
    if problems:
        listed = "; ".join(problems[:8]) + (" ..." if len(problems) > 8 else "")
        raise ValueError(
            f"{source} does not fit: {listed} ({len(problems)} in all); "
            "name a file of the same architecture"
        )
    module.load_state_dict(loaded, strict=False)
    return KeyReport(list(loaded), missing, surplus)


def _reason(key: str, table: Mapping[str, str]) -> str:
    return next((why for pattern, why in table.items() if re.search(pattern, key)), "")
