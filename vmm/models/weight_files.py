"""Weight files from elsewhere, read without running code in them, and those that vmm writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import pickletools
import re
import struct
import types
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vmm.models.lora import merge_adapters
from vmm.models.sharded_files import is_sharded, read_sharded

_WRAPPERS = ("state_dict", "model", "module")
# What torch's writer says after a write that its file object refused.
_WRITE_FAILED = "unexpected pos"
# Where Lightning keeps the weights of a run that also has an average of them.
_NOT_AVERAGED = "current_model_state"
# What torch.compile, DeepSpeed and FSDP put into the names of weights.
_IN_NAMES = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_forward_module|_fsdp_wrapped_module)\.")

BROKEN = (
    *(pickle.UnpicklingError, SafetensorError, EOFError, OSError, RuntimeError, ValueError),
    *(AssertionError, AttributeError, LookupError, MemoryError, TypeError, struct.error),
)
"""What torch and safetensors raise while they read a file with damaged bytes, as
``tests/stress/checkpoints.py`` found; to be caught around a call of theirs and nothing else."""


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that others may read as any new file: by the user's umask.

    safetensors 0.8 makes files that only their owner can read.

    Args:
        tensors: By their names, without gaps in memory.
        path: The file.
        metadata: Kept in its head.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error
    mask = os.umask(0o077)  # it can be read only by changing it
    os.umask(mask)
    with contextlib.suppress(PermissionError):  # drives without modes
        path.chmod(0o666 & ~mask)


def write_pickle(content: dict[str, Any], path: Path) -> None:
    """Write a file of ``torch.save``.

    Args:
        content: Tensors, and what else can be loaded with ``weights_only=True``.
        path: The file.

    Raises:
        OSError: If it cannot be written.
    """
    with path.open("wb") as file:  # by its name, the file would hold it
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if _WRITE_FAILED not in str(error):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


class _Inert:
    """Takes the place of an object that a training loop saved and nobody needs."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _joined(*parts: object) -> str:
    """Stand in for a path: its text."""
    return "/".join(map(str, parts))


# What research code leaves in its checkpoints beside tensors. None of these names is looked up;
# each gets a stand-in that only holds data.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": types.SimpleNamespace,
    "easydict.EasyDict": OrderedDict,
    "utils.easydict.EasyDict": OrderedDict,
    # Python 3.13 pickles paths under the name of the file that they are defined in.
    **{
        f"{module}.{kind}": _joined
        for module in ("pathlib", "pathlib._local")
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "numpy.dtype": _Inert,
    "numpy.core.multiarray.scalar": _Inert,
    "numpy._core.multiarray.scalar": _Inert,
    "_codecs.encode": _Inert,
}


class WeightFile(NamedTuple):
    """What a weight file holds."""

    state: dict[str, Tensor]
    """The tensors, out of the usual wrappers, and with LoRA merged."""
    settings: dict[str, Any]
    """The ``config`` or ``args`` saved beside them, as plain dictionaries; often empty."""


def read_state_dict(path: Path, averaged: bool = True) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or PyTorch file; see ``read_weight_file``.

    They may have any shape.
    """
    return read_weight_file(path, averaged).state


def read_weight_file(path: Path, averaged: bool = True) -> WeightFile:
    """Read a ``.safetensors`` or PyTorch file on the CPU, without running code that it names.

    The folder that sharded training saves is read as well.

    Args:
        path: The file.
        averaged: Where a run kept an average of its weights, take that one.

    Raises:
        ValueError: If the file is missing, broken, or holds more than plain data.
    """
    if is_sharded(path):
        content: Any = read_sharded(path, _load_pickle)
    else:
        refuse_as_weights(path)
        content = _load_safe(path) if path.suffix == ".safetensors" else _load_pickle(path)
    settings: Any = {}
    if not averaged:
        if not isinstance(content, Mapping) or _NOT_AVERAGED not in content:
            raise ValueError(
                f"{path} holds no average of weights, so its weights are the raw ones; name it "
                "without :raw"
            )
        content = content[_NOT_AVERAGED]
    if isinstance(content, Mapping):
        settings = _settings(content)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    for key, value in content.items():
        _check_entry(path, key, value)
    # Copied out of the mapped file, which may be overwritten while the tensors live.
    state = {key: value.clone() for key, value in plain_names(content).items()}
    try:
        state = merge_adapters(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return WeightFile(state, settings if isinstance(settings, dict) else {})


def _check_entry(path: Path, key: object, value: object) -> None:
    """Refuse what is no tensor with a name, or one without numbers of its own."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{path}: {str(key)[:80]} is a {type(value).__name__}, not a tensor")
    if not isinstance(key, str):
        raise ValueError(f"{path}: {str(key)[:80]} is no name of a tensor; the file is damaged")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise ValueError(
            f"{path}: {key} is a tensor of another kind ({value.dtype}, {value.layout}, on "
            f"{value.device}); save plain ones, as a state dict has them"
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(
            f"{path}: {key} claims {value.numel()} numbers and stores fewer; "
            "the file is damaged or hostile"
        )


def plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Name weights as the model does, without what wrappers around it put into the names.

    These are torch.compile, DeepSpeed, FSDP and, in front of every name, DataParallel.

    Raises:
        ValueError: If two weights get one name, or a name is no text.
    """
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError("the file's weights have no names, so it is damaged or no state dict")
    named = {_IN_NAMES.sub("", key): value for key, value in state.items()}
    if named and all(key.startswith("module.") for key in named):
        named = {key.removeprefix("module."): value for key, value in named.items()}
    if len(named) < len(state):
        raise ValueError("the file holds weights twice, with and without the name of a wrapper")
    return named


def load_plain(path: Path, **options: Any) -> Any:
    """Unpickle tensors and plain data, on the CPU unless told otherwise.

    Args:
        path: The file.
        options: For ``torch.load``.

    Raises:
        ValueError: If the file is missing, broken, or holds more than plain data.
    """
    refuse_as_weights(path)
    try:
        return torch.load(path, **{"map_location": "cpu", "weights_only": True, **options})
    except BROKEN as error:
        code = _unknown_globals(path) or _named_code(path)
        if code:
            raise _refusal(path, code) from error
        raise _damaged(path, error) from error


def refuse_damaged(path: Path) -> None:
    """Read a PyTorch file whole and compare the checksums of its parts.

    Raises:
        ValueError: If it is cut, changed, or none.
    """
    refuse_as_weights(path)
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip()
    except (zipfile.BadZipFile, zlib.error, *BROKEN) as error:
        raise _damaged(path, error) from error
    if bad is not None:
        raise ValueError(f"{path} is damaged: the checksum of {bad} is wrong; take another one")


def _damaged(path: Path, error: Exception) -> ValueError:
    # torch's own text for what is no checkpoint at all recommends to switch its safety off
    told = isinstance(error, RuntimeError | OSError | SafetensorError)
    detail = str(error).partition("\n")[0] if told and "weights_only" not in str(error) else ""
    return ValueError(
        f"{path} is damaged or no weight file; download or save it again. {detail}".strip()
    )


def refuse_as_weights(path: Path) -> None:
    """Recognise what people take for a weight file: other folders, other files, nothing.

    Raises:
        ValueError: If it is one of these, with the remedy.
    """
    if path.is_dir():
        raise _folder_refusal(path)
    if not path.is_file():
        raise ValueError(f"no weight file {path}; check the path, or download the file first")
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        raise ValueError(f"{path} is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
    if head[:1] == b"<":
        raise ValueError(f"{path} is a web page, not a weight file; download the file itself")


def _folder_refusal(path: Path) -> ValueError:
    """Name the remedy for the folders that sharded training saves."""
    names = {file.name for depth in ("*", "*/*") for file in path.glob(depth)}
    if any(name == "zero_to_fp32.py" or name.endswith("_states.pt") for name in names):
        return ValueError(
            f"{path} is a sharded checkpoint of DeepSpeed; turn it into one file first, "
            f"with `python {path / 'zero_to_fp32.py'} {path} OUT`, and name that file"
        )
    if ".metadata" in names:
        return ValueError(
            f"{path} is a sharded checkpoint; turn it into one file first, with `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {path} OUT`, and name that"
        )
    return ValueError(f"{path} is a folder; name the weight file in it")


def _load_safe(path: Path) -> dict[str, Any]:
    """Read tensors, and the settings that may stand in the header."""
    try:
        with safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get("config")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except BROKEN as error:
        raise _damaged(path, error) from error
    try:
        return {"model": state, "config": json.loads(header)} if header else state
    except (ValueError, RecursionError):
        return state  # a config of someone else's, in another form


def _load_pickle(path: Path) -> object:
    """Unpickle tensors, plain data and stand-ins."""
    stand_ins = dict(_STAND_INS)
    named = _unknown_globals(path)
    # Projects carry their own copy of this class under all kinds of module names.
    stand_ins |= {name: OrderedDict for name in named if name.endswith(".EasyDict")}
    stand_ins |= {name: _Inert for name in named if name.startswith("deepspeed.")}
    unknown = sorted(set(named) - set(stand_ins))
    if unknown:
        raise _refusal(path, unknown)
    allowed: list[Any] = [(function, name) for name, function in stand_ins.items()]
    with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        # Mapped, so that what nobody asks for, such as an optimizer's moments, is never read.
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        content: object = load_plain(path, mmap=zipped)
    return content


def _unknown_globals(path: Path) -> list[str]:
    """Name what torch would not unpickle; nothing for a damaged file and for the older format."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except BROKEN:
        return []


def _named_code(path: Path) -> list[str]:
    """Name what a bare pickle would call, without running it; empty for anything else."""
    names: list[str] = []
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    except (*BROKEN, OverflowError):
        return []  # no pickle
    return names


def _refusal(path: Path, code: list[str]) -> ValueError:
    return ValueError(
        f"{path} was not loaded: it would run code of {', '.join(code)}; save its state dict "
        "alone, with torch.save or safetensors"
    )


def _settings(content: Mapping[Any, Any]) -> Any:
    try:
        return _plain(content.get("config", content.get("args", {})))
    except RecursionError:
        return {}  # something that holds itself


def _plain(value: Any) -> Any:
    """Turn stand-ins into dictionaries, lists, numbers and text; leave out the rest."""
    if isinstance(value, types.SimpleNamespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else None
