"""``vmm import`` and ``vmm export-upstream``; torch is loaded when they have begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, whole
from vmm.recipe_files import here_or_packaged, refuse_no_run
from vmm.text_output import say

_SIZES = {
    "num-frames": "fit the position table over time",
    "image-size": "fit the position table over space, pixels",
    "tubelet-size": "inflate the patch kernel of images to it",
    "text-num-heads": "attention heads of the text encoder",
    "clip-num-heads": "attention heads of a CLIP tower",
}
"""Numbers that a checkpoint does not say, or that are to be others."""


def main_import(argv: Sequence[str]) -> int:
    """``vmm import``; returns the exit status."""
    parser = CommandParser(
        prog="vmm import",
        description="Turn a published VideoMamba checkpoint (or a CLIP tower) into a folder that "
        "evaluation and init_from take like a run directory. No code in the file is run.",
    )
    parser.add_argument("checkpoint", help="file, or OWNER/REPOSITORY:FILE on the hub")
    parser.add_argument("out", type=Path, help="folder to create")
    for name, what in _SIZES.items():
        parser.add_argument(f"--{name}", type=whole(1), help=what)
    parser.add_argument(
        "--tokenizer",
        type=here_or_packaged,
        default="bert-base-uncased",
        help="hub name or folder of the text encoder's vocabulary (default: %(default)s)",
    )
    arguments = vars(parser.parse_args(argv))

    from vmm.export.published import ACCOUNT, import_checkpoint

    source, out = arguments.pop("checkpoint"), arguments.pop("out")
    published = import_checkpoint(source, out, **arguments)
    report = published.report
    lines = [f"{source}: {published.family}, {len(report.used)} keys used"]
    for title, keys in (
        ("dropped", report.dropped),
        ("not in the file", report.new),
        ("changed", report.changed),
    ):
        counts = Counter(keys.values())
        lines += [f"  {title}: {count} ({reason})" for reason, count in counts.items()]
    lines.append(f"wrote {out}; the account of every key is {out / ACCOUNT}")
    say("\n".join(lines), lines=True)
    return 0


def main_export_upstream(argv: Sequence[str]) -> int:
    """``vmm export-upstream``; returns the exit status."""
    parser = CommandParser(
        prog="vmm export-upstream",
        description="Write the weights of a run in the layout of the published VideoMamba files.",
    )
    parser.add_argument("run", type=Path, help="directory of `vmm fit` or `vmm import`")
    parser.add_argument("out", type=Path, help="file to write: .pth or .safetensors")
    parser.add_argument("--checkpoint", default="best", help="best, last or a file name")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args(argv)

    refuse_no_run(arguments.run)
    from vmm.export.published import export_upstream

    count = export_upstream(arguments.run, arguments.out, arguments.checkpoint, arguments.dtype)
    say(f"wrote {count} weights to {arguments.out}")
    return 0
