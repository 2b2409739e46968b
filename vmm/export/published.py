"""Published checkpoints in, published checkpoints out.

An imported folder is a run directory: evaluation, ``init_from`` and export take it like one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from vmm.models.checkpoints import Published, load_published, save_published
from vmm.models.classifier import VideoClassifier
from vmm.models.masked_student import MaskedStudent
from vmm.models.published_layout import LAYOUTS, Family
from vmm.models.run_text import keep_text_files, with_own_text
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.text_interface import TextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.weight_files import read_state_dict, write_tensors
from vmm.runs import (
    IMPORTED_WEIGHTS,
    TASKS,
    build,
    find_checkpoint,
    read_config,
    sha256,
)
from vmm.text_output import complain
from vmm.version import __version__
from vmm.whole import whole_folder

ACCOUNT = "import.json"
CLIP_CONFIG = "open_clip_config.json"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FAMILIES: dict[type[nn.Module], Family] = {
    VideoTextModel: "video_text",
    MaskedStudent: "masked_pretrain",
    VideoClassifier: "video_classifier",
}
# What vmm's own runs hold and the published layouts do not.
_NOT_UPSTREAM = ("teacher.", "model.distill_head.")


def import_checkpoint(source: str, out: Path, **options: Any) -> Published:
    """Turn a published checkpoint into a run directory.

    Args:
        source: File, or ``owner/repository:file`` on the Hugging Face hub.
        out: Folder to create: ``config.yaml``, ``model.safetensors`` and ``import.json``, the
            account of every key; for a CLIP tower also its open_clip config.
        options: As for ``vmm.models.checkpoints.load_published``.

    Raises:
        ValueError: If the file cannot be used or ``out`` is not empty; nothing is written then.
    """
    with whole_folder(out) as folder:
        published = load_published(source, **options)
        state = published.model.state_dict()
        write_tensors(
            {key: value.contiguous() for key, value in state.items()}, folder / IMPORTED_WEIGHTS
        )
        (folder / "config.yaml").write_text(yaml.safe_dump(_recipe(published), sort_keys=False))
        if isinstance(published.model, VideoTextModel):
            _keep_words(folder, published.model.text_encoder)
        if published.family == "clip_visual":
            config = json.dumps(published.config["open_clip"], indent=2)
            (folder / CLIP_CONFIG).write_text(config + "\n")
        account = {
            "vmm": __version__,
            "source": source,
            "sha256": sha256(Path(source)) if Path(source).is_file() else None,
            "family": published.family,
            "parameters": sum(p.numel() for p in published.model.parameters()),
            **published.report._asdict(),
        }
        (folder / ACCOUNT).write_text(json.dumps(account, indent=1) + "\n")
    return published


def _keep_words(folder: Path, encoder: TextEncoder) -> None:
    """Keep the vocabulary with the weights, if it can be found."""
    try:
        keep_text_files(folder, encoder)
    except ValueError as error:
        complain(
            "vmm: the folder has no vocabulary, so captions can only be read where it is found; "
            "import the file again with --tokenizer and the folder of the vocabulary that it was "
            f"trained with: {error}"
        )


def _recipe(published: Published) -> dict[str, Any]:
    """Describe the model as a run's ``config.yaml`` does."""
    node = published.config
    if published.family == "clip_visual":
        return {"model": {"class_path": "vmm.models.clip_vit.ClipTeacher", "init_args": {}}}
    arguments = {k: v for k, v in node["init_args"].items() if k != "align_head"}
    task = next(path for path, kind in TASKS.items() if kind.model is type(published.model))
    encoder = arguments["video_encoder"]["init_args"]
    clip = {name: encoder[name] for name in ("num_frames", "image_size")} | {"antialias": False}
    return {
        "model": {"class_path": task, "init_args": arguments},
        "data": {"class_path": "vmm.data.datamodules.WebVideoData", "init_args": clip},
    }


def export_upstream(run: Path, out: Path, checkpoint: str = "best", dtype: str = "float32") -> int:
    """Write a run's weights in the published layout.

    Args:
        run: Directory of ``vmm fit`` or ``vmm import``.
        out: File to write, ``.pth`` or ``.safetensors``.
        checkpoint: As for ``vmm.runs.find_checkpoint``.
        dtype: ``float32`` or ``bfloat16``, as the published stage-2 files.

    Returns:
        Number of tensors written.

    Raises:
        ValueError: If the run's model has no published layout, or ``out`` is there.
    """
    if out.exists():
        raise ValueError(f"{out} is there already; name a new file")
    family = _family(run)
    weights = read_state_dict(find_checkpoint(run, checkpoint))
    state = {
        key.removeprefix("model."): value
        for key, value in weights.items()
        if not key.startswith(_NOT_UPSTREAM)
    }
    if family == "masked_pretrain":  # the published stage 1 has no norm after pooling
        state = {k: v for k, v in state.items() if not k.startswith("video_encoder.pool_norm.")}
    heads = None
    if family == "video_text":
        text = build(with_own_text(read_config(run), run), VideoTextModel).text_encoder
        if not isinstance(text, BertTextEncoder):
            raise ValueError(
                f"the published layouts hold a BERT, and {type(text).__name__} is none; "
                "`vmm export` writes any model"
            )
        heads = text.architecture.num_attention_heads
    save_published(state, family, out, _DTYPES[dtype], heads)
    return len(state)


def _family(run: Path) -> Family:
    account = run / ACCOUNT
    if account.is_file():
        try:
            named = json.loads(account.read_bytes())["family"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{account} is damaged; import the checkpoint again") from error
        known: dict[str, Family] = {family: family for family in LAYOUTS}
        if not isinstance(named, str) or named not in known:
            raise ValueError(f"{account} names the family {named!r}; vmm knows {', '.join(known)}")
        return known[named]
    config = read_config(run)
    task = (config.get("model") or {}).get("class_path")
    kind = TASKS.get(str(task))
    if kind is None or kind.model not in _FAMILIES:
        raise ValueError(
            f"runs of {task} have no published layout; export a run of stage 1 or 2, or of "
            "classification"
        )
    if kind.model is VideoClassifier:
        encoder: Any = build(config, VideoClassifier).video_encoder
        if getattr(encoder, "pooling", "cls") != "cls" or [*encoder.pool_norm.parameters()]:
            raise ValueError(
                "the published classifiers read the class token without a norm after it (pooling "
                "cls, pool_norm false); `vmm export` writes any model"
            )
        return "image_classifier" if encoder.num_frames == 1 else "video_classifier"
    return _FAMILIES[kind.model]
