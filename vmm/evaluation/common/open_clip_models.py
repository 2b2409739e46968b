"""Models of open_clip as it builds them, by name or by model config."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from vmm.hub import asking_hub
from vmm.models.clip_tower import read_config


def create_model(name: str, pretrained: str | None) -> tuple[nn.Module, Any]:
    """Build a model.

    Args:
        name: open_clip's name of the model, or its model config, a file that ends in ``.json``.
        pretrained: A tag of open_clip or a file; None = random weights.

    Returns:
        The model and its tokenizer.

    Raises:
        ValueError: If open_clip does not know the model or cannot get the weights.
    """
    import open_clip

    try:
        with asking_hub():
            known = _known(name)
            model = open_clip.create_model(known, pretrained=pretrained)
        return model, open_clip.get_tokenizer(known)
    except (OSError, RuntimeError, ValueError) as error:
        said = str(error).partition(" Available: ")[0]  # without the names of all models
        raise ValueError(
            f"open_clip cannot build {name!r} with weights {pretrained!r}: {said}; "
            + _remedy(name, pretrained)
        ) from error


def _remedy(name: str, pretrained: str | None) -> str:
    import open_clip

    if open_clip.is_pretrained_cfg(name, pretrained or ""):
        return "it knows both: try again with a network, or give a file of the weights as the tag"
    return "give a name and a tag that `open_clip.list_pretrained()` has, or files of both"


def _known(name: str) -> str:
    """Give the name by which open_clip knows a model, which it is told of a model config."""
    if not name.endswith(".json"):
        return name
    import open_clip

    with TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)
        path.write_text(json.dumps(read_config(name)))
        open_clip.add_model_config(path)
    return path.stem
