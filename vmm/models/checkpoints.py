"""Published VideoMamba checkpoints: load one as a model of ours, and write one back.

    from vmm.models.checkpoints import load_published
    published = load_published("videomamba_m16_25M_f8_res224.pth")
    published.model, published.family, published.config, published.report

The rules for key names are in ``vmm.models.published_layout``, what shapes tell in
``vmm.models.published_shapes``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from vmm.hub import expect_network
from vmm.models.alignment_head import AlignmentHead
from vmm.models.classifier import VideoClassifier
from vmm.models.clip_tower import fit_tower
from vmm.models.clip_vit import ClipTeacher
from vmm.models.layers import Pooling
from vmm.models.masked_student import MaskedStudent
from vmm.models.published_layout import (
    LAYOUTS,
    Family,
    join_published,
    recognise,
    split_published,
    unwrap_keys,
)
from vmm.models.published_shapes import (
    ShapeError,
    clip_config,
    num_taps,
    shape_of,
    text_encoder_arguments,
    video_encoder_arguments,
)
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.models.weight_files import read_weight_file, write_pickle, write_tensors
from vmm.models.weights import check_finite, load_accounted, usual_types
from vmm.whole import whole_file

_HUB_NAME = re.compile(r"^([\w.-]+/[\w.-]+):([\w./-]+)$")
_MAX_WORDS = 32  # of a caption, in the published pretraining
_ENCODER = "video_encoder."
_PATCHES = "video_encoder.patch_embed.proj.weight"


class ImportReport(NamedTuple):
    """What became of every key of a published file."""

    used: dict[str, str]
    """Published key to ours."""
    dropped: dict[str, str]
    """Published key to the reason why it has no place here."""
    new: dict[str, str]
    """Our keys that the file lacks, with the reason why that is right."""
    changed: dict[str, str]
    """Published keys whose tensor was not taken as it is, with what was done."""


@dataclass(frozen=True)
class Published:
    """A published checkpoint as a model.

    Attributes:
        model: In evaluation mode, float32, on the CPU: a ``VideoTextModel``, ``MaskedStudent``,
            ``VideoClassifier`` or ``ClipTeacher``.
        family: Which family of files it came from.
        config: Class paths and constructor arguments of its parts, as a recipe has them.
        report: The account of all keys.
    """

    model: nn.Module
    family: Family
    config: dict[str, Any]
    report: ImportReport


@dataclass(frozen=True)
class _Source:
    """A file under our key names, and what the caller wants of it."""

    name: str
    state: dict[str, Tensor]
    settings: dict[str, Any]
    num_frames: int | None
    image_size: int | None
    tubelet_size: int | None
    text_num_heads: int | None
    clip_num_heads: int | None
    tokenizer: str


def load_published(
    path: str | os.PathLike[str],
    *,
    num_frames: int | None = None,
    image_size: int | None = None,
    tubelet_size: int | None = None,
    text_num_heads: int | None = None,
    clip_num_heads: int | None = None,
    tokenizer: str = "bert-base-uncased",
) -> Published:
    """Load a published checkpoint of any family.

    The family is told by the keys, all sizes by the tensors. No code in the file is run.

    Args:
        path: A ``.pth``, ``.pt`` or ``.safetensors`` file, or ``owner/repository:file`` on the
            Hugging Face hub.
        num_frames: Fit the position table over time to this many frames, linearly; None = the
            file's own.
        image_size: Fit the position table over space to frames of this side, bicubically, pixels;
            None = the file's own.
        tubelet_size: Inflate the patch kernel of single frames to so many frames per token; None =
            the file's own.
        text_num_heads: Attention heads of the text encoder; None = what the file's own config
            says, else those of the published text encoder of this width.
        clip_num_heads: Attention heads of a CLIP tower; None = as CLIP's ViTs of its width.
        tokenizer: Hub name or folder of the text encoder's vocabulary, read on first use.

    Raises:
        ValueError: If the file cannot be read, is of no published family, is damaged, or lacks or
            adds a weight that no rule explains.
    """
    file = _local_file(os.fspath(path))
    content = read_weight_file(file)
    state = unwrap_keys(content.state)
    patches = state.get("patch_embed.proj.weight")
    family = recognise(state, str(file), None if patches is None else patches.ndim)
    ours, names, dropped = split_published(state, family, str(file))
    sizes = {key: tuple(value.shape) for key, value in ours.items()}
    source = _Source(
        str(file), ours, content.settings, num_frames, image_size, tubelet_size,
        text_num_heads, clip_num_heads, tokenizer,
    )  # fmt: skip
    model, config, fitted = _build(source, family)
    fitted = {key: value.float() for key, value in fitted.items()}
    account = load_accounted(model, fitted, str(file), LAYOUTS[family].new, {})
    shapes = {key: tuple(value.shape) for key, value in fitted.items()}
    changed = {
        key: f"{'inflated' if key == _PATCHES else 'fitted'} from {size} to {shapes[key]}"
        for key, size in sizes.items()
        if key in shapes and shapes[key] != size
    }
    report = ImportReport(
        used={published: key for key, published in names.items()},
        dropped=dropped,
        new=account.new,
        changed={names[key]: what for key, what in changed.items()},
    )
    return Published(model.eval(), family, config, report)


def save_published(
    state: Mapping[str, Tensor],
    family: Family,
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    text_num_heads: int | None = None,
) -> None:
    """Write weights in the published layout.

    Args:
        state: State dict of a model as ``load_published`` returns it for this family;
            weights of any shape.
        family: Layout to write.
        path: ``.safetensors``, or a PyTorch file otherwise; replaced if it exists.
        dtype: Convert the weights to this type; None = as they are.
        text_num_heads: Attention heads of the text encoder, which no shape tells; written beside
            the weights, in the place where the published training code has its config.

    Raises:
        ValueError: If there is a weight that the layout has no place for, or none that it needs, or
            the folder does not exist.
    """
    if not Path(path).parent.is_dir():
        raise ValueError(f"there is no folder {Path(path).parent} to write to; make it first")
    if family != "clip_visual" and f"{_ENCODER}layers.0.mixer.A_b_log" not in state:
        raise ValueError(
            "the published layouts are those of VideoMamba encoders; this model has another"
        )
    check_finite(state, f"{path} is not written")
    state = {key: value.to(dtype or value.dtype) for key, value in state.items()}
    if family == "image_classifier":
        if (frames := state[_PATCHES].shape[2]) != 1:
            raise ValueError(
                f"{path} is not written: this encoder sees {frames} frames per token, the "
                "published image models see one; `vmm export` writes any model"
            )
        state[_PATCHES] = state[_PATCHES].squeeze(2)
        del state[f"{_ENCODER}temporal_pos_embedding"]
    if "temperature" in state:
        state["temperature"] = state["temperature"].reshape(())
    published = join_published(state, family)
    heads = {"num_attention_heads": text_num_heads}
    config = {"model": {"text_encoder": heads}} if text_num_heads is not None else {}
    target = Path(path)
    with whole_file(target) as file:
        if target.suffix == ".safetensors":
            # Tied tensors are written twice: the format has no references.
            tensors = {key: value.clone().contiguous() for key, value in published.items()}
            write_tensors(tensors, file, {"config": json.dumps(config)} if config else None)
        else:
            write_pickle({"model": published, "config": config} if config else published, file)


def _local_file(path: str) -> Path:
    """Local path of a file or of one on the hub, which is fetched into the hub's cache."""
    hub = _HUB_NAME.match(path)
    if hub is None or Path(path).exists():
        return Path(path).expanduser()
    from huggingface_hub import hf_hub_download

    expect_network()
    try:
        return Path(hf_hub_download(hub[1], hub[2]))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"could not fetch {hub[2]} of {hub[1]} from the hub; download it elsewhere and name "
            f"the file. {error}"
        ) from error


_Built = tuple[nn.Module, dict[str, Any], dict[str, Tensor]]


def _build_encoder(
    source: _Source, pooling: Pooling, pool_norm: bool
) -> tuple[VideoMamba, dict[str, Any], dict[str, Tensor]]:
    """Build the encoder of a file; its recipe node; the whole state with fitted tables."""
    arguments = video_encoder_arguments(source.state) | {
        "pooling": pooling,
        "pool_norm": pool_norm,
        "num_taps": num_taps(source.state) or 1,
        "init": "reference",
    }
    wanted = {
        "num_frames": source.num_frames,
        "image_size": source.image_size,
        "tubelet_size": source.tubelet_size,
    }
    if source.tubelet_size is not None:  # as many steps of time as the file has
        steps = arguments["num_frames"] // arguments["tubelet_size"]
        arguments["num_frames"] = steps * source.tubelet_size
    arguments |= {name: value for name, value in wanted.items() if value is not None}
    encoder = VideoMamba(**arguments)
    own = {key: value for key, value in source.state.items() if key.startswith(_ENCODER)}
    fitted = encoder.adapt_state(
        {key.removeprefix(_ENCODER): value.float() for key, value in own.items()}
    )
    # What the file lacks stays as the encoder begins, and is reported so.
    state = source.state | {key: fitted[key.removeprefix(_ENCODER)] for key in own}
    return encoder, _node(VideoMamba, arguments), state


def _build_classifier(source: _Source) -> _Built:
    encoder, node, state = _build_encoder(source, "cls", pool_norm=False)
    num_classes = shape_of(state, "head.weight", 2)[0]
    model = VideoClassifier(encoder, num_classes)
    if f"{_ENCODER}temporal_pos_embedding" not in state:  # an image model: no time, so zero
        nn.init.zeros_(encoder.temporal_pos_embedding)
    config = _node(VideoClassifier, {"video_encoder": node, "num_classes": num_classes})
    return model, config, state


def _build_student(source: _Source) -> _Built:
    encoder, node, state = _build_encoder(source, "cls+avg", pool_norm=False)
    head, head_node = _build_align_head(source.state, encoder.embed_dim)
    config = _node(MaskedStudent, {"video_encoder": node, "align_head": head_node})
    return MaskedStudent(encoder, head), config, state


def _build_video_text(source: _Source) -> _Built:
    pooling = _setting(source.settings, "model", "vision_encoder", "pool_type")
    if pooling not in get_args(Pooling):
        pooling = "cls+avg"
    encoder, node, state = _build_encoder(source, pooling, pool_norm=True)
    heads = source.text_num_heads
    arguments = text_encoder_arguments(state, _saved_heads(source) if heads is None else heads)
    positions = arguments["architecture"].max_position_embeddings
    arguments |= {
        "name": source.tokenizer,
        "pretrained": False,
        "max_words": min(_MAX_WORDS, positions),
    }
    text = BertTextEncoder(encoder.embed_dim, **arguments)
    proj_dim = shape_of(state, "vision_proj.weight", 2)[0]
    text_node = _node(
        BertTextEncoder, arguments | {"architecture": asdict(arguments["architecture"])}
    )
    config = {"video_encoder": node, "text_encoder": text_node, "proj_dim": proj_dim}
    head = None
    if num_taps(state):
        head, config["align_head"] = _build_align_head(state, encoder.embed_dim)
    model = VideoTextModel(encoder, text, proj_dim, align_head=head)
    return model, _node(VideoTextModel, config), state


def _build_clip(source: _Source) -> _Built:
    config = clip_config(source.state, source.clip_num_heads)
    teacher = ClipTeacher.from_config(config, source.image_size)
    own = {key.removeprefix("visual."): value for key, value in source.state.items()}
    state = {f"visual.{key}": value for key, value in fit_tower(teacher.visual, own).items()}
    return teacher, {"open_clip": config}, state


_BUILDERS = {
    "image_classifier": _build_classifier,
    "video_classifier": _build_classifier,
    "masked_pretrain": _build_student,
    "video_text": _build_video_text,
    "clip_visual": _build_clip,
}


def _build(source: _Source, family: Family) -> _Built:
    """Build the model of a file, its recipe node, and the whole state with fitted tables."""
    try:
        with usual_types():
            return _BUILDERS[family](source)
    except ShapeError as error:
        raise ValueError(f"{source.name} is no whole {family} file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error


def _build_align_head(
    state: Mapping[str, Tensor], embed_dim: int
) -> tuple[AlignmentHead, dict[str, Any]]:
    head = "align_head.decoders.0.head.weight"
    if head not in state:
        raise ShapeError("clip_decoder.0.head.weight is missing")
    arguments = {
        "embed_dim": embed_dim,
        "output_dim": shape_of(state, head, 2)[0],
        "num_taps": num_taps(state),
    }
    return AlignmentHead(**arguments), _node(AlignmentHead, arguments)


def _saved_heads(source: _Source) -> int | None:
    """Attention heads that the file's own config states, if it does."""
    for path in (("num_attention_heads",), ("config", "num_attention_heads")):
        heads = _setting(source.settings, "model", "text_encoder", *path)
        if type(heads) is int:
            return heads
    return None


def _setting(settings: Any, *path: str) -> Any:
    for name in path:
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings


def _node(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": dict(arguments)}
