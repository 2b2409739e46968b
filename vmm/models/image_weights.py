"""Weights of image models for Vision Transformers over clips.

This is the only module that imports timm, and only when weights are fetched. The models are those
of timm (https://github.com/huggingface/pytorch-image-models) and CLIP's towers.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from vmm.hub import expect_network
from vmm.models.clip_tower import FILE_SUFFIXES, tower_state
from vmm.models.video_encoder import VideoEncoder
from vmm.models.weight_files import read_state_dict
from vmm.models.weights import KeyReport, load_accounted

_NO_BIAS = "patch_embed.proj.bias"
_NEW = {
    r"(^|\.)temporal_": "images have no time",
    rf"^{_NO_BIAS}$": "CLIP's patches have no bias; zero",
}
_DROPPED = {r"^(head|head_dist|fc_norm|pre_logits|proj)(\.|$)": "what follows the image's tokens"}
_CLIP = (
    ("transformer.resblocks.", "blocks."),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("ln_", "norm"),
    ("conv1", "patch_embed.proj"),
    ("class_embedding", "cls_token"),
    ("positional_embedding", "pos_embed"),
)
"""CLIP's names, and timm's."""


def load_image_weights(encoder: VideoEncoder, name: str, quick_gelu: bool) -> KeyReport:
    """Load the weights of a ViT over images; tables and patch kernel are fitted to the encoder.

    Args:
        encoder: With timm's names of a ViT's parameters; those over time stay as they are.
        name: Of a pretrained model of timm, or a file of one, or of CLIP's image tower.
        quick_gelu: Whether the encoder has the activation of OpenAI's CLIP, which no weight tells.

    Returns:
        What became of every key.

    Raises:
        ValueError: If there is no such model or file, it cannot be fetched, or it does not fit.
    """
    path = Path(name).expanduser()
    if path.suffix in FILE_SUFFIXES or path.is_file():
        state = _with_timm_names(tower_state(read_state_dict(path), name)[0])
    else:
        state = _fetched(name, quick_gelu)
    report = load_accounted(encoder, encoder.adapt_state(state), name, _NEW, _DROPPED)
    if _NO_BIAS in report.new:
        nn.init.zeros_(encoder.get_parameter(_NO_BIAS))
    return report


def _with_timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if "class_embedding" not in state:
        return state
    renamed = {}
    for key, value in state.items():
        for theirs, timms in _CLIP:
            key = key.replace(theirs, timms)
        renamed[key] = value
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    renamed["pos_embed"] = renamed["pos_embed"].unsqueeze(0)
    return renamed


def _fetched(name: str, quick_gelu: bool) -> dict[str, Tensor]:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ValueError(
            f'the weights {name} come from timm: pip install "vmm-video[train]"'
        ) from error
    if not timm.is_model(name):
        raise ValueError(
            f"{name!r} is neither a file nor a model of timm; timm.list_pretrained('vit_*') has "
            "their names"
        )
    expect_network()
    try:
        model = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"could not fetch {name}; download it elsewhere and set pretrained to the file. {error}"
        ) from error
    quick = any(type(module).__name__ == "QuickGELU" for module in model.modules())
    if quick != quick_gelu:
        raise ValueError(
            f"{name} was trained {'with' if quick else 'without'} QuickGELU; set quick_gelu to "
            f"{str(quick).lower()}"
        )
    state: dict[str, Tensor] = model.state_dict()
    return state
