"""The text encoder's own files in a run's folder: its vocabulary, and what building it needs.

They make a run complete in itself: it can be moved, and what its recipe names need not be there.
Runs of older versions have none, and find their tokenizer where their recipe says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmm.models.recipe_nodes import class_of, init_args_of
from vmm.models.text_interface import TextEncoder
from vmm.whole import whole_folder

TEXT_FILES = "text_encoder"
"""The folder in a run's folder."""


def keep_text_files(run: Path, encoder: TextEncoder) -> None:
    """Write what building a text encoder again needs into its run's folder.

    Raises:
        ValueError: If the vocabulary cannot be read.
    """
    with whole_folder(run / TEXT_FILES, replace=True) as folder:
        encoder.save_sources(folder)


def own_text_arguments(node: Any, run: Path) -> dict[str, Any] | None:
    """Give the arguments with which a run's text encoder is built from the run's own files.

    Args:
        node: Of the text encoder, in the run's recipe.
        run: The run's folder.

    Returns:
        ``init_args``; None if the run has no such files, or the node is none of a text encoder.

    Raises:
        ValueError: If the node names a class that is not built.
    """
    folder = run / TEXT_FILES
    if not folder.is_dir() or not isinstance(node, Mapping):
        return None
    kind = class_of(node, TextEncoder)  # type: ignore[type-abstract]
    return kind.arguments_in(folder, init_args_of(node))


def text_node(config: Mapping[str, Any]) -> Any:
    """Find the text encoder's node in a recipe; None if it has none."""
    return init_args_of(config.get("model")).get("text_encoder")


def with_own_text(config: dict[str, Any], run: Path) -> dict[str, Any]:
    """Let the recipe of a run name the run's own files, if there are any; see ``keep_text_files``.

    Raises:
        ValueError: If the recipe names a text encoder that is not built.
    """
    node = text_node(config)
    arguments = own_text_arguments(node, run)
    if arguments is None:
        return config
    model = config["model"]
    own = {**model["init_args"], "text_encoder": {**node, "init_args": arguments}}
    return {**config, "model": {**model, "init_args": own}}
