"""What a training of one's own clips can start from, and the parts of a recipe that follow.

A run of ``vmm fit`` or a folder of ``vmm import``, a CLIP of open_clip, or nothing. The parts are
read from the run's own recipe, or from the packaged ones, which alone know what is good for what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vmm.recipe_files import PACKAGED
from vmm.shards.tokenizer_folder import read_tokenizer
from vmm.starting.words import words_of, write_words
from vmm.wording import check_captions

_UNREADABLE = 0.3
"""Share of the words, spelled out or unknown, from which a vocabulary is none for the captions."""
_LENGTHS = (32, 64, 128, 256, 512)
_FEW = 2000
"""Clips below which the image tower of a CLIP stays as it is."""
_SHARE = 0.2
"""Learning rate of fine-tuning, as a share of that of the run that is started from."""
_CLIP_SETTINGS = (
    "mean", "std", "sampling", "fps", "stride", "fit", "crop_pct", "interpolation", "antialias",
)  # fmt: skip
"""How a run made input of videos, beside sizes, which are the encoder's."""
_IMPORTED_LR = 2e-5
"""For published checkpoints: the fine-tuning settings of the published code."""


@dataclass(frozen=True)
class Start:
    """Parts of a recipe, and what people should know of them.

    Attributes:
        model: ``model.init_args``.
        clip: Of ``data.init_args``: how a video becomes input.
        image_size: Of the frames, pixels.
        before: Options of ``vmm eval`` that name the start; "" where it is chance.
        said: Why it is so, a sentence each.
        task: Class of the model.
        monitor: Curve by which a state is kept, and whether "min" or "max" of it.
    """

    model: dict[str, Any]
    clip: dict[str, Any]
    image_size: int
    before: str
    said: list[str] = field(default_factory=list)
    task: str = "vmm.tasks.video_text.VideoTextTask"
    monitor: tuple[str, str] = ("val/t2v_mean_rank", "min")


@dataclass(frozen=True)
class Wanted:
    """What a start is made for.

    Attributes:
        clips: To train on.
        captions: Some of theirs.
        text: Text encoder where the start brings none that reads them: "words" or the name of a
            model of transformers; None = MiniLM.
        beside: Where to write what goes with the recipe, without extension.
    """

    clips: int
    captions: Sequence[str]
    text: str | None
    beside: Path


def start_from(given: str, wanted: Wanted) -> Start:
    """Make the parts of a recipe.

    Args:
        given: ``nothing``, ``open_clip:NAME:PRETRAINED`` as for ``vmm eval``, or a folder.
        wanted: For what.

    Raises:
        ValueError: If it is none of these, or cannot be used.
    """
    kind, _, rest = given.partition(":")
    if given == "nothing":
        return _with_text(_from_nothing(), wanted, keep=None)
    if kind == "open_clip" and rest:
        name, _, pretrained = rest.partition(":")
        if wanted.text is not None:
            raise ValueError("--text is for a start without text encoder, and a CLIP has its own")
        return _from_open_clip(name, pretrained, wanted)
    if Path(given).is_dir():
        return _from_run(Path(given), wanted)
    raise ValueError(
        f"--from {given} is no folder; give a run of `vmm fit`, a folder of `vmm import`, "
        "open_clip:NAME:PRETRAINED (e.g. open_clip:ViT-B-32-quickgelu:openai), or nothing"
    )


def packaged(name: str) -> dict[str, Any]:
    """Read a recipe or a part of one that comes with vmm."""
    content: dict[str, Any] = yaml.safe_load((PACKAGED / name).read_text(encoding="utf-8"))
    return content


def _args(node: Any) -> dict[str, Any]:
    return dict((node or {}).get("init_args") or {})


def _from_nothing() -> Start:
    model = _args(packaged("stage2_vtt.yaml")["model"])
    encoder = packaged(model["video_encoder"])
    kept = ("proj_dim", "temperature", "loss_weights", "optimizer", "text_lr_ratio")
    own = {"video_encoder": encoder} | {name: model[name] for name in kept}
    said = [
        "everything is learnt from these clips alone, by a small encoder: expect it to tell apart "
        "what is in them, and nothing else"
    ]
    return Start(own, {}, _args(encoder)["image_size"], "", said)


def _from_open_clip(name: str, pretrained: str, wanted: Wanted) -> Start:
    from vmm.hub import has_network
    from vmm.models.clip_tower import is_here, pixel_statistics, read_config  # loads torch

    if not pretrained:
        raise ValueError(
            f"open_clip:{name} names no weights; add a tag of open_clip, e.g. "
            f"open_clip:{name}:openai, or a file"
        )
    config = read_config(name)
    overlay = packaged("overlays/clip_time.yaml")
    model, data = _args(overlay["model"]), _args(overlay["data"])
    size = config["vision_cfg"].get("image_size", 224)
    image_size = size if isinstance(size, int) else size[0]
    for part in ("video_encoder", "text_encoder"):
        model[part]["init_args"] |= {"name": name, "pretrained": pretrained}
    model["video_encoder"]["init_args"]["image_size"] = image_size
    model["proj_dim"] = config["embed_dim"]
    mean, std = pixel_statistics(name, pretrained)
    said = ["the text tower stays as it is, so its words keep their meaning"]
    if wanted.clips < _FEW:
        model["freeze"] = ["video_encoder.visual", *model["freeze"]]
        said = [
            f"{wanted.clips} clips are few: both towers stay as they are, and only blocks over "
            "time and the projection learn; take video_encoder.visual out of freeze for more"
        ]
    if not is_here(name, pretrained):
        how = "which fetches them once"
        if not has_network():
            how = "and there is no network: fetch them elsewhere, and put the file in the place of "
            how += f"{pretrained} (--from open_clip:{name}:FILE)"
        said.append(f"the weights of {name}:{pretrained} are not here, `vmm fit` needs them, {how}")
    frames = model["video_encoder"]["init_args"]["num_frames"]
    before = f"--model open_clip:{name}:{pretrained} --num-frames {frames}"
    return Start(model, data | {"mean": mean, "std": std}, image_size, before, said)


def _from_run(run: Path, wanted: Wanted) -> Start:
    from vmm.models.run_text import own_text_arguments  # loads torch, as the others do

    config, encoder = _encoder_of(run)
    args = _args(config.get("model"))
    imported = "optimizer" not in args
    model: dict[str, Any] = {"init_from": str(run), "video_encoder": encoder}
    model |= {name: args[name] for name in ("proj_dim", "temperature") if name in args}
    weights = dict(args.get("loss_weights") or {"vtc": 1.0, "vtm": 1.0, "mlm": 1.0}) | {
        "align": 0.0
    }
    model["loss_weights"] = weights
    model["optimizer"] = _optimizer(args, imported)
    model |= {name: args[name] for name in ("text_lr_ratio", "freeze") if args.get(name)}
    if args.get("vtc_kind") == "sigmoid":
        model |= {name: args[name] for name in ("vtc_kind", "logit_bias") if name in args}
    size = _args(encoder).get("image_size", 224)
    start = Start(model, _clip_of(config), size, f"--run {run}")
    text = args.get("text_encoder")
    if not isinstance(text, Mapping):
        start.said.append(f"{run} reads no text: text encoder and joint space begin anew")
        return _with_text(replace(start, before=""), wanted, keep=None)
    own = own_text_arguments(text, run) or _args(text)
    start.model["text_encoder"] = {**text, "init_args": own}
    return _with_text(start, wanted, keep=run / "text_encoder")


def classifier_from(given: str, num_classes: int, classes: str | None, field: str | None) -> Start:
    """Make the parts of a recipe that trains a classifier.

    Args:
        given: A run or a folder of ``vmm import``, whose video encoder it gets, or ``nothing``.
        num_classes: How many there are.
        classes: List of their names; None = labels are numbers.
        field: Where in the JSON of a sample its label is; None = where ``vmm shards make`` writes
            it.

    Raises:
        ValueError: If it is none of these, or has no video encoder.
    """
    usual = _args(packaged("classification.yaml")["model"])
    model: dict[str, Any] = {}
    said: list[str] = []
    clip: dict[str, Any] = {}
    if given == "nothing":
        encoder = packaged(usual["video_encoder"])
        optimizer = usual["optimizer"]
        said.append("everything is learnt from these clips alone, by a small encoder")
    elif Path(given).is_dir():
        config, encoder = _encoder_of(Path(given))
        args = _args(config.get("model"))
        model["init_from"] = given
        optimizer = _optimizer(args, imported="optimizer" not in args)
        clip = _clip_of(config)
    else:
        raise ValueError(
            f"--from {given} is no folder; a classifier starts from a run of `vmm fit`, a folder "
            "of `vmm import`, or nothing"
        )
    model |= {"video_encoder": encoder, "num_classes": num_classes}
    model |= {"classes": classes} if classes else {}
    model |= {"label_smoothing": usual["label_smoothing"], "optimizer": optimizer}
    clip = {"content": "labels"} | ({"label_field": field} if field else {}) | clip
    size = _args(encoder).get("image_size", 224)
    before = "" if given == "nothing" else f"--run {given}"
    task = "vmm.tasks.classification.ClassificationTask"
    return Start(model, clip, size, before, said, task, ("val/top_1", "max"))


def _encoder_of(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the recipe of a run that has weights, and the part of it that is its video encoder."""
    from vmm.runs import find_checkpoint, read_config  # loads torch

    config = read_config(run)
    find_checkpoint(run)
    encoder = _args(config.get("model")).get("video_encoder")
    if not isinstance(encoder, Mapping):
        raise ValueError(f"{run} has no video encoder, so no training of clips can start from it")
    return config, {**encoder, "init_args": _without_weights(_args(encoder))}


def _clip_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say how a run made input of videos, where that is not the default."""
    from vmm.data.transforms import ClipSettings  # loads torch

    data = _args(config.get("data"))
    usual = {one.name: one.default for one in fields(ClipSettings)}
    clip = {name: data[name] for name in _CLIP_SETTINGS if data.get(name) is not None}
    return {name: value for name, value in clip.items() if _listed(value) != _listed(usual[name])}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _without_weights(args: dict[str, Any]) -> dict[str, Any]:
    """Name no published weights: those of the run take their place."""
    return args | ({"pretrained": None} if "pretrained" in args else {})


def _optimizer(args: Mapping[str, Any], imported: bool) -> dict[str, Any]:
    if imported:
        lr, betas = _IMPORTED_LR, [0.9, 0.999]
    else:
        of_run = _args(args["optimizer"])
        lr, betas = _SHARE * float(of_run.get("lr", 1e-4)), list(of_run.get("betas", [0.9, 0.999]))
    return {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": float(f"{lr:.2g}"), "betas": betas},
    }


def _with_text(start: Start, wanted: Wanted, keep: Path | None) -> Start:
    """See to it that the captions can be read.

    Args:
        start: Without text encoder, or with that of ``keep``.
        wanted: The captions.
        keep: Folder of a vocabulary that is kept if it has most of the words.
    """
    if keep is not None:
        unread = _unreadable(keep, wanted.captions)
        if unread <= _UNREADABLE and wanted.text is None:
            return start
        start = replace(start, model=dict(start.model), said=list(start.said))
        start.model["init_parts"] = "video_encoder"
        start.said.append(
            f"the text encoder of {keep.parent} spells out or does not know {unread:.0%} of the "
            "words, so another one begins anew; the video encoder is the run's"
            if unread > _UNREADABLE
            else "only the video encoder is the run's, since --text names another text encoder"
        )
    if wanted.text == "words":
        return _with_words(start, wanted)
    text = packaged("overlays/minilm.yaml")["model"]["init_args"]["text_encoder"]
    args = _args(text)
    args |= {"name": wanted.text or args["name"]}
    args["max_words"] = _length(_longest(wanted.captions) * 3 // 2)
    lr = start.model["optimizer"]["init_args"]["lr"]
    # What the overlay has beside the rate of the recipe that it is for.
    ratio = packaged("overlays/minilm.yaml")["model"]["init_args"]["text_lr_ratio"]
    rate = ratio * _args(_args(packaged("stage2_vtt.yaml")["model"])["optimizer"])["lr"]
    start.model["text_encoder"] = {**text, "init_args": args}
    start.model["text_lr_ratio"] = float(f"{min(1.0, rate / lr):.2g}")
    where = (
        ""
        if Path(args["name"]).is_dir()
        else (", which is fetched from the hub once (without a network: --text words)")
    )
    start.said.append(f"captions are read by {args['name']}{where}")
    return start


def _with_words(start: Start, wanted: Wanted) -> Start:
    base = _args(packaged("stage2_vtt.yaml")["model"])
    folder = wanted.beside.with_name(wanted.beside.name + "_words")
    length = _length(2 + _longest(wanted.captions))
    count = write_words(folder, wanted.captions, PACKAGED / "encoders/bert_demo", length)
    text = base["text_encoder"]
    args = _args(text) | {"name": str(folder), "pretrained": False, "max_words": length}
    start.model["text_encoder"] = {**text, "init_args": args}
    start.model["text_lr_ratio"] = base["text_lr_ratio"]
    start.said.append(
        f"captions are read by a small text encoder that knows the {count} words of the training "
        f"captions ({folder}); what a search for other words finds is chance"
    )
    return start


def _longest(captions: Sequence[str]) -> int:
    return max((len(words_of(caption)) for caption in captions), default=0)


def _length(tokens: int) -> int:
    return next((length for length in _LENGTHS if length >= tokens), _LENGTHS[-1])


def _unreadable(vocabulary: Path, captions: Sequence[str]) -> float:
    """Give the share of the words that a vocabulary has no token for; 0 if it cannot be told."""
    try:
        tokenizer = read_tokenizer(vocabulary)
    except ValueError:
        return 0.0
    check = check_captions(captions, tokenizer, 512, tokenizer.unknown)
    return (check.spelled + check.unknown) / max(1, check.words)
