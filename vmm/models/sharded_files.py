"""Weights out of the folders that sharded training saves, without running code in them.

Two layouts: that of ``torch.distributed.checkpoint``, as FSDP saves, and DeepSpeed's. vmm writes
neither: its own sharded runs save single files.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Loader = Callable[[Path], Any]
"""Reads a file of torch.save without running code in it."""

_METADATA = ".metadata"
_WRAPPERS = ("state_dict.", "model.", "module.")
_ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata"),
        *("ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"} | {str(d).removeprefix("torch.") for d in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
        torch.int16, torch.int8, torch.uint8, torch.bool,
    )},
}  # fmt: skip
"""What the description of a folder is made of."""


def is_sharded(path: Path) -> bool:
    """Tell the folder of a sharded checkpoint."""
    return path.is_dir() and ((path / _METADATA).is_file() or _deepspeed_folder(path) is not None)


def read_sharded(path: Path, load: Loader) -> dict[str, Tensor]:
    """Put the weights of a sharded checkpoint together, on the CPU.

    Args:
        path: The folder.
        load: For single files in it.

    Returns:
        Tensors of any shape, by name.

    Raises:
        ValueError: If parts are missing or damaged, or would run code.
    """
    folder = _deepspeed_folder(path)
    try:
        return _read_torch(path) if folder is None else _read_deepspeed(folder, load)
    except ValueError:
        raise
    except (OSError, EOFError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, detail: str) -> ValueError:
    return ValueError(
        f"{path} is a sharded checkpoint of which parts are missing or damaged: "
        f"{detail.partition(chr(10))[0][:200]}; copy the whole folder again"
    )


class _Description(pickle.Unpickler):
    """Unpickle the description of a folder, which is all plain data."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("pathlib") and name.endswith("Path"):
            return lambda *parts: "/".join(map(str, parts))
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it would run code of {module}.{name}")
        return super().find_class(module, name)


def _read_torch(path: Path) -> dict[str, Tensor]:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with (path / _METADATA).open("rb") as file:
            described = _Description(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise _damaged(path, f"{_METADATA}: {error}") from error
    if not isinstance(described, Metadata):
        raise _damaged(path, f"{_METADATA} describes no checkpoint")
    whole: Metadata = described
    whole.storage_meta = StorageMeta()

    class Reader(FileSystemReader):
        def read_metadata(self, *unused: Any, **named: Any) -> Metadata:
            return whole

    entries = {
        key: entry
        for key, entry in described.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and not key.startswith("optimizer")
    }
    claimed = sum(e.size.numel() * e.properties.dtype.itemsize for e in entries.values())
    if claimed > sum(file.stat().st_size for file in path.iterdir()):
        raise _damaged(path, f"it claims {claimed} bytes of weights and stores fewer")
    for info in (described.storage_data or {}).values():
        if Path(info.relative_path).name != info.relative_path:
            raise _damaged(path, f"it names the file {info.relative_path}, which is not in it")
    state: dict[str, Any] = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype, device="cpu")
        for key, entry in entries.items()
    }
    try:
        load(state, storage_reader=Reader(path), no_dist=True)
    except CheckpointException as error:
        raise _damaged(path, "a file of weights cannot be read") from error
    wrapper = next((w for w in _WRAPPERS if state and all(k.startswith(w) for k in state)), "")
    return {key.removeprefix(wrapper): value for key, value in state.items()}


def _deepspeed_folder(path: Path) -> Path | None:
    """Find where DeepSpeed's files of a checkpoint are; None if it is none of DeepSpeed's."""
    latest = path / "latest"
    names = [path, path / "checkpoint"]
    if latest.is_file() and latest.stat().st_size < 256:
        tag = latest.read_text(errors="replace").strip()
        names.insert(0, path / Path(tag).name)
    return next((folder for folder in names if any(folder.glob("*_model_states.pt"))), None)


def _read_deepspeed(folder: Path, load: Loader) -> dict[str, Tensor]:
    whole = folder / "mp_rank_00_model_states.pt"
    if whole.is_file():  # stages 0 to 2
        return _weights(folder, load(whole)["module"])
    parts = [load(file) for file in _by_rank(folder, "*_model_states.pt")]
    ranks = [load(file) for file in _by_rank(folder, "*_optim_states.pt")]
    if not ranks or len(parts) != len(ranks):
        raise _damaged(folder, f"{len(ranks)} of {len(parts)} files of optimizers are there")
    flat = []
    for rank in ranks:
        groups = rank["optimizer_state_dict"]["fp32_flat_groups"]
        flat.append(torch.cat([group.flatten() for group in groups]))
    shapes = {k: v for group in parts[0]["param_shapes"] for k, v in group.items()}
    state = {name: parts[0]["module"][name] for name in parts[0]["buffer_names"]}
    first = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        own = math.ceil(count / len(flat))
        pieces = [rank[first : first + own] for rank in flat]
        state[name] = torch.cat(pieces)[:count].view(*shape).clone()
        first += own
    for name, shape in (parts[0].get("frozen_param_shapes") or {}).items():
        pieces = [part["frozen_param_fragments"][name].flatten() for part in parts]
        state[name] = torch.cat(pieces)[: math.prod(shape)].view(*shape).clone()
    return _weights(folder, state)


def _by_rank(folder: Path, pattern: str) -> list[Path]:
    def rank(file: Path) -> int:
        return int(file.name.partition("zero_pp_rank_")[2].partition("_")[0])

    return sorted(folder.glob(pattern), key=rank)


def _weights(folder: Path, state: object) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _damaged(folder, "it holds no weights")
    return dict(state)
