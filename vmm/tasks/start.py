"""Start weights: take what a finished run or a checkpoint file offers, and say what was taken.

Components (``video_encoder``, ``text_encoder``, ``align_head``, ...) are loaded whole or not at
all; nothing inside a component is ever skipped.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from vmm.models.sharded_files import is_sharded
from vmm.models.text_interface import TextEncoder
from vmm.models.video_encoder import VideoEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.weight_files import read_state_dict
from vmm.models.weights import load_accounted
from vmm.runs import find_checkpoint

logger = logging.getLogger(__name__)

# Stage 1 and classifiers of the published system have no norm after pooling.
_NEW = {r"^pool_norm\.": "only one of both has a norm after pooling"}
_WRAPPER = "model."  # encoders, projections and heads live in the task's model


def _components(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort keys by component: {component: {key inside it: tensor}}."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        name, _, rest = key.removeprefix(_WRAPPER).partition(".")
        parts[name][rest] = value
    return parts


def _other_shapes(module: nn.Module, weights: dict[str, Tensor]) -> bool:
    own = module.state_dict()
    return any(key in own and value.shape != own[key].shape for key, value in weights.items())


def _offered(path: Path, setting: str) -> tuple[Path, dict[str, dict[str, Tensor]]]:
    """Read the components of a run directory's best checkpoint, or of a file."""
    file = find_checkpoint(path) if path.is_dir() and not is_sharded(path) else path
    offered = _components(read_state_dict(file))
    if "video_encoder" not in offered:
        raise ValueError(
            f"{file} holds no video_encoder (only {', '.join(sorted(offered))}); "
            f"{setting} wants a run of `vmm fit` or a folder of `vmm import`"
        )
    return file, offered


def load_published(model: nn.Module) -> None:
    """Load the published weights that a recipe names, and the joint space that they bring along.

    Args:
        model: It has a ``video_encoder`` and perhaps a ``text_encoder``.

    Raises:
        ValueError: If weights are not to be had or do not fit.
    """
    for name in ("video_encoder", "text_encoder"):
        encoder = getattr(model, name, None)
        if isinstance(encoder, VideoEncoder | TextEncoder):
            encoder.load_pretrained()
    if isinstance(model, VideoTextModel):
        model.take_projections()


def load_encoder(encoder: VideoEncoder, path: Path, setting: str) -> None:
    """Load a video encoder alone, whole; position tables are interpolated to its sizes.

    Args:
        encoder: What gets the weights.
        path: Run directory (its best checkpoint), folder of ``vmm import`` or checkpoint file.
        setting: That named the path.

    Raises:
        ValueError: If the file has no video encoder, or it does not fit.
    """
    file, offered = _offered(path, setting)
    weights = encoder.adapt_state(offered["video_encoder"])
    report = load_accounted(encoder, weights, f"video_encoder of {file}", _NEW, _NEW)
    logger.info("%s: video_encoder of %s: %s", setting, file, report)


def component_names(task: nn.Module) -> set[str]:
    """Name what a task's weights belong to."""
    return set(_components(dict(task.state_dict())))


def load_start_weights(
    task: nn.Module,
    path: Path,
    replaced: Collection[str] = (),
    parts: Collection[str] | None = None,
) -> list[str]:
    """Load every component that the file and the task share.

    Position tables are interpolated to the encoder's own sizes.

    Args:
        task: A stage's LightningModule.
        path: Run directory (its best checkpoint) or a checkpoint file.
        replaced: Components that stay as they are where the file's have other shapes.
        parts: Components to load; None = all.

    Returns:
        Names of the loaded components.

    Raises:
        ValueError: If the file has no video encoder, a shared component does not fit, or one of
            ``parts`` is not there.
    """
    file, offered = _offered(path, "init_from")
    if parts is not None:
        if unknown := sorted(set(parts) - offered.keys()):
            raise ValueError(
                f"init_parts {unknown[0]!r} is not in {file}; it has {', '.join(sorted(offered))}"
            )
        offered = {name: offered[name] for name in parts}
    holder = getattr(task, "model", task)
    loaded, said, left_out = [], [], []
    for name, weights in sorted(offered.items()):
        module = getattr(holder, name, None) or getattr(task, name, None)
        if isinstance(module, VideoEncoder):
            weights = module.adapt_state(weights)
        if name in replaced and isinstance(module, nn.Module) and _other_shapes(module, weights):
            was, now = (next(iter(w.values())) for w in (weights, module.state_dict()))
            logger.warning(
                "init_from: %s of %s has %d outputs and this run %d: a new one is trained",
                *(name, file, len(was), len(now)),
            )
            continue
        if isinstance(module, nn.Parameter):
            module.data.copy_(weights[""])
            said.append(name)
        elif isinstance(module, nn.Module):
            report = load_accounted(module, weights, f"{name} of {file}", _NEW, _NEW)
            said.append(f"{name} ({report})" if report.new or report.dropped else name)
        else:
            left_out.append(name)
            continue
        loaded.append(name)
    fresh = sorted(component_names(task) - set(loaded) - {"teacher"})
    parts_of = {"takes": said, "leaves out": left_out, "new are": fresh}
    told = "; ".join(f"{what} {', '.join(names)}" for what, names in parts_of.items() if names)
    logger.info("init_from %s: %s", file, told)
    return loaded
