"""The Hugging Face hub: what is read of it, and that there may be no network."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from vmm.recipe_files import here_or_packaged

_logger = logging.getLogger(__name__)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def expect_network() -> None:
    """Call before a library asks the hub: without a network it reads at once what was fetched.

    It would ask five times more for each file, which is half a minute.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not has_network():
        constants.HF_HUB_OFFLINE = True  # transformers, open_clip and timm read it, too
        hub = urlsplit(constants.ENDPOINT).hostname
        _logger.warning("there is no network to %s: only what was fetched before is found", hub)


def has_network() -> bool:
    """Tell whether the hub may be asked and can be found."""
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        return False
    if {hub.scheme, "all"} & getproxies().keys():  # a proxy knows names that this machine does not
        return True
    try:
        socket.getaddrinfo(hub.hostname, hub.port)  # small machines know no number of "https"
    except OSError:
        return False
    return True


@contextmanager
def fetched_only() -> Iterator[None]:
    """Let libraries find what was fetched before, and ask no hub."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def asking_hub() -> Iterator[None]:
    """Expect the network, and keep from being said twice what a library logs and then raises."""
    expect_network()
    root = logging.getLogger()

    def is_no_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    root.addFilter(is_no_error)
    try:
        yield
    finally:
        root.removeFilter(is_no_error)


def here_or_hub(name: str) -> str:
    """Find a folder as ``here_or_packaged`` does; what is none is a name on the hub."""
    place = here_or_packaged(name)
    if not Path(place).exists():
        expect_network()
    return place


def refuse_no_folder(name: str | Path) -> None:
    """Refuse what ``local_folder`` cannot find, before anything heavy is loaded.

    Raises:
        ValueError: If it is neither a folder nor can be a name on the hub.
    """
    if not Path(name).expanduser().is_dir() and not _HUB_NAME.fullmatch(str(name)):
        raise ValueError(f"there is no folder {name}, and it is no OWNER/NAME on the hub")


def local_folder(name: str | Path, revision: str | None = None) -> Path:
    """Return a folder, or fetch ``owner/name`` from the hub into the hub's cache.

    Args:
        name: An existing folder, or a name on the hub.
        revision: Branch, tag or commit on the hub; None = the newest.

    Raises:
        ValueError: If there is no such folder and the hub does not give one.
    """
    refuse_no_folder(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    expect_network()
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
