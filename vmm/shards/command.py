"""``vmm shards make`` and ``inspect``: shards of a data set's files, and a look into them.

    vmm shards make msrvtt_ret_train9k.json videos/ -o shards/msrvtt-train
    vmm shards make imagenet/train imagenet/train --dataset class-folders -o shards/imagenet-train
    vmm shards inspect 'data/demo/train-*.tar' -o inspected

Of a data set whose annotations name classes, ``classes.txt`` beside the shards lists them.
What is written, and what a stopped run leaves, is in ``vmm.shards.making`` and ``inspection``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.data.annotations.class_folders import CLASS_FOLDERS, class_folders, class_names
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.shards.inspection import InspectOptions, in_words, inspect_shards
from vmm.shards.making import MakeOptions, make_shards
from vmm.shards.samples import Layout
from vmm.text_output import say
from vmm.whole import whole_file


def _range(text: str) -> tuple[int, int]:
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B")
    return int(first), int(end)


def _make_parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=prog,
        description="Make shards from a data set's annotation file and a folder of its media.",
        epilog=f"data sets: {', '.join((*DATASETS, CLASS_FOLDERS))}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, layout = parser.add_argument, Layout()
    add(
        "annotations",
        type=Path,
        help="annotation file, or folder of them; of class-folders, the folder of the classes",
    )
    add("media", type=Path, help="folder of the videos or images")
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    add("--dataset", help="whose annotations; told by the file where possible")
    add("--split", help='of a file that holds several, e.g. "train+restval"')
    add("--ids", type=Path, help="file that lists the ids to keep")
    add("--paragraph", action=argparse.BooleanOptionalAction, default=None,
        help="join the captions of a video; by default as the data set's protocol does",
    )  # fmt: skip
    add("--layout", choices=("original", "mp4", "frames"), default=layout.kind,
        help="files as they are; H.264; or JPEG pictures at a rate in one Matroska file per clip",
    )  # fmt: skip
    add("--short-side", type=int, default=layout.short_side,
        help="shorter side of re-encoded media, pixels; nothing is enlarged")  # fmt: skip
    add("--gop", type=int, default=layout.gop,
        help="most frames from one key frame to the next, layout mp4")  # fmt: skip
    add("--fps", type=float, default=layout.fps, help="pictures per second, layout frames")
    add("--quality", type=int, default=layout.quality,
        help="of JPEG, 1 to 95, layout frames and re-encoded images")  # fmt: skip
    add("--samples-per-shard", type=int, default=1000, help="of a full shard")
    add("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    add("--shard-range", type=_range, metavar="A:B", help="make only these shards")
    add("--ray", action="store_true", help="run on a Ray cluster")
    return parser


def _annotations(given: argparse.Namespace) -> list[Annotation]:
    if given.dataset != CLASS_FOLDERS:
        return read_annotations(
            given.annotations, given.dataset,
            split=given.split, ids=given.ids, paragraph=given.paragraph,
        )  # fmt: skip
    if (given.split, given.ids, given.paragraph) != (None, None, None):
        raise ValueError("--split, --ids and --paragraph are for annotation files")
    return class_folders(given.annotations)


def main_make(argv: Sequence[str] | None = None, prog: str = "vmm shards make") -> int:
    """Make shards; returns 0 if every shard is finished and holds something."""
    given = _make_parser(prog).parse_args(argv)

    def run() -> int:
        annotations = _annotations(given)
        layout = Layout(given.layout, given.short_side, given.gop, given.fps, given.quality)
        options = MakeOptions(
            given.media, given.out, layout,
            given.samples_per_shard, given.workers, given.shard_range, given.ray,
        )  # fmt: skip
        made = make_shards(annotations, options)
        if names := class_names(annotations):
            with whole_file(options.out / "classes.txt") as file:
                file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        failed = ", ".join(f"{n} {reason}" for reason, n in made.failed.items())
        say(
            f"{options.out}: {made.finished} of {made.shards} shards, "
            f"{made.successes} of {made.count} samples, {made.bytes / 1e6:.1f} MB; "
            f"failed: {failed or 'none'}"
        )
        return 0 if made.successes else 1

    kept = "the shards that are finished stay, the same command makes the rest"
    return run_to_status(prog, run, kept)


def main_inspect(argv: Sequence[str] | None = None, prog: str = "vmm shards inspect") -> int:
    """Count, measure and show what is in shards; returns the exit status."""
    parser = CommandParser(
        prog=prog,
        description="Count, measure and show what is in shards.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("shards", nargs="+", help="paths with $VARIABLES, braces and wildcards")
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    add("--pictures", type=whole(0), default=48, help="samples on the contact sheet")
    add("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    help_text = "folder of a text encoder: which captions it cuts, which words it spells out"
    add("--tokenizer", type=Path, help=help_text)
    add("--max-words", type=whole(3), default=32, help="tokens that a caption may have")
    options = InspectOptions(**vars(parser.parse_args(argv)))

    def run() -> int:
        numbers = inspect_shards(options)
        say(f"{in_words(numbers)}\npage: {options.out / 'index.html'}", lines=True)
        return 0

    return run_to_status(prog, run)
