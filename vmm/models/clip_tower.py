"""Towers of CLIP, SigLIP and their kind: built and loaded through open_clip.

CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343). This is the only module of models that imports
open_clip, and only when a tower is built. Shape legend: see ``vmm.types``; W width of a tower, E
width of the joint space of its model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from vmm.hub import expect_network, fetched_only
from vmm.models.layers import interpolate_spatial, tapped_layers
from vmm.models.weight_files import read_state_dict
from vmm.models.weights import KeyReport, load_accounted
from vmm.ops.quick_gelu import with_quick_gelu
from vmm.recipe_files import here_or_packaged

FILE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}
"""Of files of weights; other names are those of models."""
_TOWER_PREFIX = re.compile(r"^(?:.*\.)?(?:visual|clip_teacher)\.")
_TEXT_PREFIX = re.compile(r"^(?:.*\.)?text\.")
_OLD_TEXT = re.compile(
    r"^(?:text_projection|positional_embedding|token_embedding\.|transformer\.|ln_final\.)"
)
"""How the keys of a text tower begin in files that keep it beside the image tower."""
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language"}


class PublishedWeights(NamedTuple):
    """What a file of a whole model holds for one of its towers."""

    path: Path
    state: dict[str, Tensor]
    """The tower's, without prefix."""
    other: list[str]
    """Keys of everything else."""
    temperature: float | None
    """What the model divides cosines by, if the file says it."""


def import_open_clip() -> Any:
    """Give open_clip, or say how to get it."""
    try:
        import open_clip
    except ImportError as error:
        raise ValueError(
            'towers of CLIP and SigLIP are built by open_clip: pip install "vmm-video[open-clip]"'
        ) from error
    return open_clip


def read_config(name: str) -> dict[str, Any]:
    """Configuration of an open_clip model, whatever its towers are.

    Args:
        name: An open_clip model name, or a path to an open_clip model config (``.json``).

    Raises:
        ValueError: If there is no such model or file.
    """
    if name.endswith(".json"):
        path = Path(here_or_packaged(name))
        if not path.is_file():
            raise ValueError(f"no model config {name}; check the path")
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is no model config: {error}") from error
    else:
        config = import_open_clip().get_model_config(name)
    if not config:
        raise ValueError(
            f"open_clip knows no model {name!r}; see open_clip.list_models(), or give the path of "
            "a model config that ends in .json"
        )
    return checked_config(config, name)


def checked_config(config: Any, name: str) -> dict[str, Any]:
    """Return what describes a model, or refuse what does not.

    Raises:
        ValueError: If a part is missing, or asks for what is elsewhere.
    """
    node = config.get("model_cfg", config) if isinstance(config, Mapping) else {}
    vision, text = node.get("vision_cfg"), node.get("text_cfg", {})
    if not (isinstance(vision, Mapping) and isinstance(text, Mapping) and "embed_dim" in node):
        raise ValueError(
            f"{name} is no model config of open_clip: it must have embed_dim, vision_cfg and "
            "text_cfg"
        )
    timm = vision.get("timm_model_name", "")
    if not isinstance(timm, str) or ":" in timm:
        raise ValueError(f"{name} names {timm!r}, which is no architecture of timm")
    odd = sorted(set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS)
    if odd:  # some of them run code
        raise ValueError(f"{name} wants {odd[0]} of its tokenizer, which is not supported")
    return dict(node)


def model_config(name: str) -> dict[str, Any]:
    """Configuration of an open_clip model whose image tower is a plain ViT.

    Args:
        name: As for ``read_config``.

    Raises:
        ValueError: If there is no such model or file, or its image tower is not a plain ViT.
    """
    return plain(read_config(name), name)


def plain(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a model config whose image tower is a plain ViT.

    Raises:
        ValueError: If it is another one.
    """
    vision = checked_config(config, name)["vision_cfg"]
    unsupported = {"timm_model_name", "attentional_pool"} & vision.keys()
    if unsupported or not isinstance(vision.get("layers"), int):
        raise ValueError(
            f"the image tower of {name} is not a plain ViT "
            f"({', '.join(sorted(unsupported)) or 'ResNet'}); choose one such as ViT-B-16-quickgelu"
        )
    return config


def build_visual(name: str, image_size: int) -> nn.Module:
    """Build the image tower of an open_clip model, randomly initialised, for square images.

    Args:
        name: As for ``model_config``.
        image_size: Side of the images, pixels; sets the size of the position table.
    """
    return build_tower(model_config(name), image_size)


def build_tower(config: dict[str, Any], image_size: int) -> nn.Module:
    """Build the plain ViT that an open_clip model config describes; see ``build_visual``."""
    visual: Any = build_any_visual(config, image_size)
    if not isinstance(visual.transformer.resblocks[0].attn, nn.MultiheadAttention):
        raise ValueError("the attention of this tower is not CLIP's; choose a plain CLIP ViT")
    return cast(nn.Module, visual)


def build_any_visual(config: dict[str, Any], image_size: int) -> nn.Module:
    """Build the image tower of an open_clip model config, whatever it is, with random weights.

    Args:
        config: From ``read_config``.
        image_size: Side of the images, pixels; sets the size of the position table.

    Raises:
        ValueError: If open_clip cannot build it.
    """
    import_open_clip()
    # open_clip's public factory would build, and for some models download, the text tower too.
    from open_clip.model import _build_vision_tower

    vision = config["vision_cfg"] | {"image_size": image_size}
    _check_depth(vision)
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    return _built(_build_vision_tower, config["embed_dim"], vision, config)


def build_text(config: dict[str, Any]) -> nn.Module:
    """Build the text tower of an open_clip model config, with random weights.

    Raises:
        ValueError: If it is one of transformers, or CoCa's, or open_clip cannot build it.
    """
    text = config.get("text_cfg") or {}
    if "hf_model_name" in text:
        raise ValueError(
            f"the text tower of this model is {text['hf_model_name']} of transformers, not one of "
            "open_clip's own; name a text encoder of vmm that reads it from transformers"
        )
    _check_depth(text)
    if text.get("embed_cls") or text.get("pool_type") == "none":
        raise ValueError("CoCa's text tower is not supported; choose one of CLIP or SigLIP")
    import_open_clip()
    from open_clip.model import _build_text_tower

    return _built(_build_text_tower, config["embed_dim"], dict(text), config)


def _check_depth(part: Mapping[str, Any]) -> None:
    layers = part.get("layers", 0)
    if isinstance(layers, int):
        tapped_layers(layers, 0, 1)  # refuses what would be built for hours


def _built(build: Any, embed_dim: Any, sizes: dict[str, Any], config: dict[str, Any]) -> nn.Module:
    """Call a builder of open_clip with numbers that nobody has checked."""
    try:
        tower = build(embed_dim, sizes, config.get("quick_gelu", False))
    except (TypeError, AssertionError, RuntimeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"open_clip cannot build this tower: {error}") from error
    return with_quick_gelu(tower)


def load_visual(visual: nn.Module, name: str, pretrained: str) -> KeyReport:
    """Load the weights of an image tower; its position table is resized where the grid differs.

    Args:
        visual: From ``build_visual``.
        name: The name it was built from.
        pretrained: An open_clip tag of that model, or a local file: a full CLIP, its image tower
            alone (with or without the prefix ``visual.``), a VideoMamba checkpoint with its
            teacher, or a checkpoint of ``vmm fit`` whose encoder is a ``FrameViT``.

    Returns:
        What became of every key.

    Raises:
        ValueError: If the file or tag does not exist, cannot be fetched, or does not fit.
    """
    found = read_visual(name, pretrained)
    state = fit_tower(visual, found.state)
    report = load_accounted(visual, state, str(found.path), new={}, dropped={})
    return report._replace(dropped=dict.fromkeys(found.other, "not part of the image tower"))


def read_visual(name: str, pretrained: str) -> PublishedWeights:
    """Read the weights of an image tower; see ``load_visual``."""
    path = _weight_file(name, pretrained)
    whole = read_state_dict(path)
    state, other = tower_state(whole, str(path))
    return PublishedWeights(path, state, other, _temperature(whole))


def read_text(name: str, pretrained: str) -> PublishedWeights:
    """Read the weights of a text tower.

    Args:
        name: The name of its model.
        pretrained: An open_clip tag of that model, or a local file of the whole model or of its
            text tower.

    Raises:
        ValueError: If the file or tag does not exist, cannot be fetched, or has no text tower.
    """
    path = _weight_file(name, pretrained)
    whole = read_state_dict(path)
    found = {key: match.end() for key in whole if (match := _TEXT_PREFIX.match(key))}
    found = found or {key: 0 for key in whole if _OLD_TEXT.match(key)}
    if not found:
        raise ValueError(f"{path} has no text tower; name a file of a whole CLIP or SigLIP")
    state = {key[end:]: whole[key] for key, end in found.items()}
    other = [key for key in whole if key not in found]
    return PublishedWeights(path, state, other, _temperature(whole))


def _temperature(state: Mapping[str, Tensor]) -> float | None:
    scale = state.get("logit_scale")
    return None if scale is None or scale.numel() != 1 else math.exp(-float(scale))


def fit_tower(visual: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fit a tower's weights to its module: a 2-D patch convolution, the module's patch grid.

    Args:
        visual: open_clip's tower.
        state: Its weights; the position table is (1 + patches, D), of any grid.
    """
    state = dict(state)
    conv, table = state.get("conv1.weight"), state.get("positional_embedding")
    if conv is not None and conv.ndim == 5:  # VideoMamba's teacher: a frame is a clip of length 1
        state["conv1.weight"] = conv.squeeze(2)
    if table is not None:
        side = math.isqrt(visual.get_parameter("positional_embedding").shape[0] - 1)
        state["positional_embedding"] = interpolate_spatial(table[None].float(), (side, side))[0]
    return state


def is_here(name: str, pretrained: str) -> bool:
    """Tell whether weights are on this machine; nothing is fetched.

    Args:
        name: The name of a model of open_clip, or its config.
        pretrained: A tag of that model, or a file.

    Raises:
        ValueError: If there is no such file or tag.
    """
    found = _file_or_entry(name, pretrained)
    if isinstance(found, Path):
        if not found.is_file():
            raise ValueError(f"there is no file {found}; name another, or a tag of open_clip")
        return True
    if not found.get("hf_hub"):  # open_clip would fetch it from elsewhere, whatever the hub's state
        return (Path("~/.cache/clip").expanduser() / Path(found["url"]).name).is_file()
    try:
        with fetched_only():
            return bool(import_open_clip().download_pretrained(found))
    except OSError:
        return False


def _weight_file(name: str, pretrained: str) -> Path:
    """Local path of a file or of an open_clip tag, which is fetched if need be."""
    found = _file_or_entry(name, pretrained)
    if isinstance(found, Path):
        return found
    expect_network()
    try:
        return Path(import_open_clip().download_pretrained(found))
    except OSError as error:
        raise ValueError(
            f"could not fetch {pretrained!r} of {name}; download it elsewhere and set pretrained "
            f"to the file. {error}"
        ) from error


def _file_or_entry(name: str, pretrained: str) -> Path | dict[str, Any]:
    """Find a file, or what open_clip knows of a tag."""
    path = Path(pretrained).expanduser()
    if path.is_file() or path.suffix in FILE_SUFFIXES or name.endswith(".json"):
        return path
    open_clip = import_open_clip()
    entry: dict[str, Any] = open_clip.get_pretrained_cfg(name, pretrained)
    if not entry:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(
            f"{pretrained!r} is neither a file nor a tag of {name} (tags: {tags}); give one of them"
        )
    quick = bool(read_config(name).get("quick_gelu", False))
    if bool(entry.get("quick_gelu", False)) != quick:
        raise ValueError(
            f"{pretrained!r} was trained {'without' if quick else 'with'} QuickGELU; use the model "
            f"{name.removesuffix('-quickgelu') if quick else name + '-quickgelu'}"
        )
    return entry


def pixel_statistics(name: str, pretrained: str) -> tuple[list[float], list[float]]:
    """Mean and deviation of the pixels that a model was trained with; CLIP's where nobody says."""
    open_clip = import_open_clip()
    said = {} if name.endswith(".json") else open_clip.get_pretrained_cfg(name, pretrained)
    mean = said.get("mean", open_clip.OPENAI_DATASET_MEAN)
    return list(mean), list(said.get("std", open_clip.OPENAI_DATASET_STD))


def tower_state(state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Split a state dict into the image tower, without prefix, and the other keys.

    Tensors may have any shape. What holds no tower by its prefix is taken for one as a whole.

    Raises:
        ValueError: If it holds several towers.
    """
    found = {key: match for key in state if (match := _TOWER_PREFIX.match(key))}
    prefixes = {match.group() for match in found.values()}
    if len(prefixes) > 1:
        raise ValueError(
            f"{source} holds several image towers ({', '.join(sorted(prefixes))}); extract one"
        )
    tower = (
        {key[match.end() :]: state[key] for key, match in found.items()} if found else dict(state)
    )
    return tower, [key for key in state if key not in found] if found else []
