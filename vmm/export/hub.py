"""Encoder folders on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(name: str | Path, revision: str | None = None) -> Path:
    """Return a folder, or fetch ``owner/name`` from the hub into the hub's cache.

    Args:
        name: An existing folder, or a name on the hub.
        revision: Branch, tag or commit on the hub; None = the newest.

    Raises:
        ValueError: If there is no such folder and the hub does not give one.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(str(name)):
        raise ValueError(f"there is no folder {name}, and it is no OWNER/NAME on the hub")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.md"]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"there is no folder {name}, and the hub did not give a model of that name; download "
            f"it elsewhere and name the folder. {error}"
        ) from error


def upload(folder: Path, name: str, private: bool = False) -> str:
    """Upload a folder as the newest revision of a model on the hub.

    Args:
        folder: The folder.
        name: ``owner/name``; created if it is new.
        private: Whether a new one is private.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(name, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=name, folder_path=folder).commit_url)
