"""CLIP's image towers: built and loaded through open_clip.

CLIP (arXiv 2103.00020). This is the only module that imports open_clip, and only when a tower is
built.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from vmm.models.layers import interpolate_spatial
from vmm.models.weight_files import read_state_dict
from vmm.models.weights import KeyReport, load_accounted

FILE_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}
"""Of files of weights; other names are those of models."""
_TOWER_PREFIX = re.compile(r"^(?:.*\.)?(?:visual|clip_teacher)\.")


def read_config(name: str) -> dict[str, Any]:
    """Configuration of an open_clip model, whatever its towers are.

    Args:
        name: An open_clip model name, or a path to an open_clip model config (``.json``).

    Raises:
        ValueError: If there is no such model or file.
    """
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no model config {name}; check the path")
        config = json.loads(path.read_bytes())
    else:
        import open_clip

        config = open_clip.get_model_config(name)
    if not config:
        raise ValueError(
            f"open_clip knows no model {name!r}; see open_clip.list_models(), or give the path of "
            "a model config that ends in .json"
        )
    return cast(dict[str, Any], config)


def model_config(name: str) -> dict[str, Any]:
    """Configuration of an open_clip model whose image tower is a plain ViT.

    Args:
        name: As for ``read_config``.

    Raises:
        ValueError: If there is no such model or file, or its image tower is not a plain ViT.
    """
    config = read_config(name)
    vision = config.get("vision_cfg", {})
    unsupported = {"timm_model_name", "attentional_pool"} & vision.keys()
    if unsupported or not isinstance(vision.get("layers"), int):
        raise ValueError(
            f"the image tower of {name} is not a plain ViT ({sorted(unsupported) or 'ResNet'}); "
            "choose one such as ViT-B-16-quickgelu"
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
    # open_clip's public factory would build, and for some models download, the text tower too.
    from open_clip.model import _build_vision_tower

    vision = config["vision_cfg"] | {"image_size": image_size}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    try:
        visual = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    except (TypeError, AssertionError, RuntimeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"open_clip cannot build this tower: {error}") from error
    return cast(nn.Module, visual)


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
    path = _weight_file(name, pretrained)
    state, other = tower_state(read_state_dict(path), str(path))
    report = load_accounted(visual, fit_tower(visual, state), str(path), new={}, dropped={})
    return report._replace(dropped=dict.fromkeys(other, "not part of the image tower"))


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


def _weight_file(name: str, pretrained: str) -> Path:
    """Local path of a file or of an open_clip tag, which is fetched if need be."""
    path = Path(pretrained).expanduser()
    if path.is_file() or path.suffix in FILE_SUFFIXES or name.endswith(".json"):
        return path
    import open_clip

    entry = open_clip.get_pretrained_cfg(name, pretrained)
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
    try:
        return Path(open_clip.download_pretrained(entry))
    except OSError as error:
        raise ValueError(
            f"could not fetch {pretrained!r} of {name}; download it elsewhere and set pretrained "
            f"to the file. {error}"
        ) from error


def tower_state(state: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Split a state dict into the image tower, without prefix, and the other keys.

    Tensors may have any shape. What holds no tower by its prefix is taken for one as a whole.

    Raises:
        ValueError: If it holds several towers.
    """
    found = {key: match for key in state if (match := _TOWER_PREFIX.match(key))}
    prefixes = {match.group() for match in found.values()}
    if len(prefixes) > 1:
        raise ValueError(f"{source} holds several image towers ({sorted(prefixes)}); extract one")
    tower = (
        {key[match.end() :]: state[key] for key, match in found.items()} if found else dict(state)
    )
    return tower, [key for key in state if key not in found] if found else []
