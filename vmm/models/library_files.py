"""Models of transformers: what is read of a local folder or of the hub, and built of it.

The only module of ``vmm.models`` that imports transformers, and only when something is read. No
code of a folder or of the hub is run: neither classes nor kernels that a configuration names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vmm.hub import here_or_hub
from vmm.models.weight_files import read_state_dict

_SPARE = 256
"""Rows of an embedding that no token needs: tables are filled up to a round number of rows."""
_ANY = 2**31


def read_configuration(name: str, what: str) -> Any:
    """Read the configuration of a model.

    Args:
        name: Local folder, or name on the hub; offline it must be in the cache.
        what: What the model is to be, for messages.

    Raises:
        ValueError: If there is none, or it needs code that transformers does not have.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(here_or_hub(name), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"cannot read the configuration of {what} {name!r}; give a folder with its "
            f"config.json (looked for from {Path.cwd()}), or a hub name and a network. {error}"
        ) from error


def configuration_of(values: dict[str, Any], what: str) -> Any:
    """Make the configuration that ``stated`` wrote down.

    Raises:
        ValueError: If transformers knows no such model, or the values do not make one.
    """
    from transformers import AutoConfig

    kind, others = values.get("model_type"), {k: v for k, v in values.items() if k != "model_type"}
    try:
        return AutoConfig.for_model(str(kind), **others)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the configuration of {what} makes no {kind!r}: {error}") from error


def stated(config: Any) -> dict[str, Any]:
    """Write a configuration down, as JSON can hold it, without where it came from."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    own = {k: v for k, v in values.items() if k not in ("auto_map", "transformers_version")}
    return {"model_type": config.model_type} | {k: v for k, v in own.items() if k[0] != "_"}


def build_library_model(config: Any, what: str) -> nn.Module:
    """Build a model of random weights, without a pooler, which would be trained by no loss.

    Raises:
        ValueError: If the sizes do not make one.
    """
    from transformers import AutoModel

    try:
        model: Any = AutoModel.from_config(
            config,
            trust_remote_code=False,
            attn_implementation=None,  # the usual one: a configuration may name one of the hub
            dtype=torch.get_default_dtype(),
        )
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, ImportError) as error:
        raise ValueError(f"cannot build {what}: {str(error).partition(chr(10))[0]}") from error
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    built: nn.Module = model
    return built


def load_library_model(name: str, config: Any, what: str) -> nn.Module:
    """Build a model and load its weights as its library does, which knows older names of them.

    Args:
        name: Local folder, or name on the hub; offline it must be in the cache.
        config: The model's, or that of a part of it.
        what: What the model is to be, for messages.

    Raises:
        ValueError: If there are no weights, or they do not fit.
    """
    from transformers import AutoModel

    try:
        model, found = AutoModel.from_pretrained(
            here_or_hub(name),
            config=config,
            trust_remote_code=False,
            attn_implementation=None,
            dtype=torch.get_default_dtype(),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"cannot load the weights of {what} {name!r}; give a folder with its "
            f"model.safetensors, or set pretrained: false. {error}"
        ) from error
    missing = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
    wrong = sorted(missing) + sorted(map(str, found["mismatched_keys"]))
    if wrong:
        raise ValueError(
            f"the weights of {what} {name!r} do not fit: {len(wrong)} are missing or of another "
            f"shape, such as {wrong[0]}; name a file of the same architecture"
        )
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    built: nn.Module = model
    return built


def read_library_weights(name: str, what: str) -> dict[str, Tensor]:
    """Read the weights of a model: its state dict, under today's names of norms.

    Raises:
        ValueError: If there are none.
    """
    path, reason = None, ""
    for filename in ("model.safetensors", "pytorch_model.bin"):
        path, reason = _cached(name, filename)
        if path is not None:
            break
    if path is None:
        raise ValueError(
            f"{what} {name!r} has neither model.safetensors nor pytorch_model.bin; add one, "
            f"or set pretrained: false. {reason}"
        )
    return {
        re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", key)): value
        for key, value in read_state_dict(path).items()
    }


def read_json(name: str, filename: str) -> dict[str, Any]:
    """Read a JSON file beside a model; nothing if there is none."""
    path, _ = _cached(name, filename)
    try:
        content = json.loads(path.read_bytes()) if path is not None else {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; mend or remove it") from error
    return content if isinstance(content, dict) else {}


def read_tokenizer(name: str, vocab_size: int) -> Any:
    """Read a tokenizer.

    Args:
        name: Local folder, or name on the hub; offline it must be in the cache.
        vocab_size: Rows of the model's word table.

    Raises:
        ValueError: If there is none, or it has more tokens than there are rows.
    """
    from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedConfig

    try:
        config, known = read_json(name, "config.json"), {}
        if config and config.get("model_type") not in CONFIG_MAPPING:  # such as vmm's own folders
            # Else transformers warns of a model of the wrong type, where none is built.
            known = {"config": PreTrainedConfig(tokenizer_class=config.get("tokenizer_class"))}
        tokenizer = AutoTokenizer.from_pretrained(
            here_or_hub(name), trust_remote_code=False, **known
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(
            f"cannot read the vocabulary of text encoder {name!r}; put its vocab.txt or "
            f"tokenizer.json beside config.json. {error}"
        ) from error
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the vocabulary of {name!r} has {len(tokenizer)} tokens, its model {vocab_size}; "
            "make both agree"
        )
    return tokenizer


def complete_tokenizer(folder: Path, max_words: int, cleaning: Sequence[Mapping[str, Any]]) -> bool:
    """Put into ``tokenizer.json`` what else happens to captions, for programs that know no vmm.

    Args:
        folder: With the file; without one nothing is done.
        max_words: Tokens that a caption may have, marks included.
        cleaning: Normalizers of the package tokenizers that come before the tokenizer's own.

    Returns:
        Whether it is there.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return False
    content = json.loads(path.read_bytes())
    own = content["normalizer"]
    steps = own["normalizers"] if own and own["type"] == "Sequence" else [own] if own else []
    if steps[: len(cleaning)] != list(cleaning):
        content["normalizer"] = {"type": "Sequence", "normalizers": [*cleaning, *steps]}
    content["truncation"] = {
        "direction": "Right",
        "max_length": max_words,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = None
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return True


def refuse_other_model(tokenizer: Any, name: str, vocab_size: int, pad_id: int | None) -> None:
    """Refuse a tokenizer that was made for another model.

    Args:
        tokenizer: From ``read_tokenizer``.
        name: Where it is from.
        vocab_size: Rows of the model's word table.
        pad_id: Token of padding by which the model counts positions; None = it does not.

    Raises:
        ValueError: If it is.
    """
    remedy = "the tokenizer is one of another model: take the model's own"
    if vocab_size - len(tokenizer) > max(_SPARE, vocab_size // 100):
        raise ValueError(
            f"the vocabulary of {name!r} has {len(tokenizer)} tokens, its model {vocab_size}; "
            f"{remedy}"
        )
    if pad_id is not None and tokenizer.pad_token_id != pad_id:
        raise ValueError(
            f"the vocabulary of {name!r} fills captions up with token {tokenizer.pad_token_id}, "
            f"its model with {pad_id}; {remedy}"
        )


def refuse_other_words(tokenizer: Any, folder: Path) -> None:
    """Refuse a tokenizer whose numbers mean other words than those of the one in a folder.

    Args:
        tokenizer: In use.
        folder: With the tokenizer that weights were trained with.

    Raises:
        ValueError: With the first word that differs.
    """
    own, other = tokenizer.get_vocab(), read_tokenizer(str(folder), _ANY).get_vocab()
    if own == other:
        return
    words = {number: word for word, number in own.items()}
    theirs = {number: word for word, number in other.items()}
    number = min(n for n in words.keys() | theirs.keys() if words.get(n) != theirs.get(n))
    raise ValueError(
        f"the text encoder's tokenizer has another vocabulary than the one in {folder}, with which "
        f"the weights were trained: token {number} is {words.get(number)!r} here and "
        f"{theirs.get(number)!r} there; name that folder as the text encoder's name"
    )


def _cached(name: str, filename: str) -> tuple[Path | None, str]:
    """Find a file of a folder or of the hub; None and the reason if it is not there."""
    from transformers.utils import cached_file

    try:
        return Path(cached_file(here_or_hub(name), filename)), ""
    except (OSError, TypeError) as error:
        return None, str(error)
