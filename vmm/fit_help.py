"""``vmm fit --help``: what matters first, on one screen, before anything heavy is loaded.

What a single setting means is read off signatures, in ``vmm.setting_help``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vmm.recipe_files import PACKAGED, merged

ALL = "all"
"""What is asked for to get every option on one page."""

_ABOUT = {
    "fit": "Train what a recipe describes. The run is a new folder below runs/.",
    "validate": "Measure a checkpoint on the validation shards of a recipe.",
    "test": "Measure a checkpoint on the test shards of a recipe.",
    "predict": "Write the embeddings of the test shards to a safetensors file.",
}


class _Setting(NamedTuple):
    name: str
    about: str
    only_fit: bool = True


SETTINGS = (
    _Setting("data.train_videos", "shards to train on: a pattern, a folder, or several corpora"),
    _Setting("data.train_images", "the same of stills; null = none"),
    _Setting("data.val_videos", "shards to validate on", False),
    _Setting("data.test_videos", "shards of `vmm test` and `vmm predict`", False),
    _Setting("data.batch_size", "clips per step and process", False),
    _Setting("data.num_workers", "processes that decode, beside each that trains", False),
    _Setting("data.steps_per_epoch", "steps of an epoch; null = until all was used once"),
    _Setting("trainer.max_epochs", "epochs"),
    _Setting("trainer.devices", "how many; auto = all of this machine", False),
    _Setting("trainer.precision", "bf16-mixed on GPUs that have it", False),
    _Setting("model.init_from", "a run, an import or a checkpoint whose weights to start from"),
    _Setting("model.video_encoder", "a file of encoders/, or a class", False),
    _Setting("model.optimizer.lr", "learning rate"),
    _Setting("trainer.logger.name", "folder of this run's kind, below runs/"),
    _Setting("trainer.logger.version", "folder of the run; by itself version_0, version_1, ..."),
    _Setting("ckpt_path", "go on from a run or a checkpoint; without fit: what to measure", False),
    _Setting("resume", "go on in the folder of this recipe's newest run"),
    _Setting("seed_everything", "seed of weights, order and draws", False),
)
"""Those that come first, as the command line takes them."""

PLAIN = {setting.name: setting.about for setting in SETTINGS if "." not in setting.name} | {
    "also_log_to": "what gets the curves beside metrics.csv; see overlays/tensorboard.yaml",
}
"""Settings that belong to no part."""

_MORE = """\
more:
  vmm {command} --help data         every setting of a part: data, model, trainer, checkpoint, ...
  vmm {command} --help mask_ratio   one setting: what it means, its type and default
  vmm {command} --help all          all options of the command line on one page
  vmm {command} {recipe} --print_config   what would be run, complete
In recipes, the settings of a class stand below its init_args; on the command line that word may be
left out.
"""


def asked_for(arguments: Sequence[str]) -> str | None:
    """Tell what help is asked for: "" for the page of this module, None for none."""
    for number, word in enumerate(arguments):
        if word.startswith("--help="):
            return word.partition("=")[2]
        if word in ("-h", "--help"):
            after = "".join(arguments[number + 1 : number + 2])
            is_recipe = after in ("-c", "--config") or after.endswith((".yaml", ".yml"))
            return "" if is_recipe else after.lstrip("-").partition("=")[0]
    return None


def page(command: str, recipes: Sequence[Mapping[str, Any]]) -> str:
    """Write the page.

    Args:
        command: fit, validate, test or predict.
        recipes: Those of the command line; their values are shown.
    """
    recipe = merged(recipes)
    shown = [s for s in SETTINGS if command == "fit" or not s.only_fit]
    width = max(len(s.name) for s in shown) + 2
    lines = [
        f"usage: vmm {command} RECIPE.yaml [OVERLAY.yaml ...] [--SETTING=VALUE ...]",
        "",
        _ABOUT[command],
        "An overlay changes what stands before it; settings come last and win.",
        "",
        "recipes and overlays that come with vmm (a file in the working folder wins):",
    ]
    lines += [_named("*.yaml"), _named("overlays/*.yaml", "overlays/: ")]
    lines += ["", f"settings that matter first{', and their values here' if recipe else ''}:"]
    for setting in shown:
        value = _value(recipe, setting.name.split("."))
        here = "" if value is None else f" [{value}]"
        lines.append(f"  --{setting.name:<{width}}{setting.about}{here}")
    return "\n".join([*lines, "", _MORE.format(command=command, recipe="RECIPE.yaml")])


def _named(pattern: str, title: str = "") -> str:
    names = ", ".join(sorted(path.name for path in PACKAGED.glob(pattern)))
    space = " " * 2
    return textwrap.fill(f"{title}{names}", 100, initial_indent=space, subsequent_indent=space)


def _value(node: Any, path: Sequence[str]) -> str | None:
    """Find a setting in a recipe; None if it says nothing."""
    for part in path:
        if not isinstance(node, Mapping):
            return None
        inner = node.get("init_args")
        node = node[part] if part in node else (inner or {}).get(part)
    return str(node) if isinstance(node, str | int | float) else None
