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
from dataclasses import replace
from pathlib import Path

from vmm.command_line import CommandParser, DefaultsFormatter, done_in_part, run_to_status, whole
from vmm.data.annotations.class_folders import class_names
from vmm.data.annotations.dataset import inside
from vmm.data.annotations.folders import FOLDERS
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.data.annotations.tables import CAPTION_FIELDS, CLASS_FIELDS, MEDIA_FIELDS
from vmm.recipe_files import here_or_packaged
from vmm.shards.inspection import InspectOptions, in_words, inspect_shards
from vmm.shards.making import PLAN, MadeShards, MakeOptions, make_shards, refuse_other
from vmm.shards.samples import Layout
from vmm.shards.splits import PARTS, is_shares, parse_shares, split_by_video, write_split
from vmm.text_output import say
from vmm.whole import whole_file

_EPILOG = (
    f"A CSV of your own has a column of files ({', '.join(MEDIA_FIELDS)}) and one of captions "
    f"({', '.join(CAPTION_FIELDS)}) or classes ({', '.join(CLASS_FIELDS)}); start and end "
    "(seconds) choose a part of the file; other columns are kept. "
    f"data sets: {', '.join((*DATASETS, *FOLDERS))}"
)


def _range(text: str) -> tuple[int, int]:
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B")
    return int(first), int(end)


def _make_parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=prog,
        description="Make shards from a data set's annotation file and a folder of its media.",
        epilog=_EPILOG,
        formatter_class=DefaultsFormatter,
    )
    add, layout = parser.add_argument, Layout()
    add(
        "annotations",
        type=Path,
        help="annotation file, or folder of them, or of clips without one (--dataset says which)",
    )
    add("media", type=Path, nargs="?",
        help="folder of the videos or images; by default that of the annotations")  # fmt: skip
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    add("--dataset", help="whose annotations; told by the file where possible")
    add("--split", help="80/10/10: percent of the clips for training, validation and test, by "
        'video; or the splits of a file that holds several, e.g. "train+restval"')  # fmt: skip
    add("--seed", type=whole(0), default=0, help="of the parts of --split 80/10/10")
    add("--group-by", metavar="COLUMN",
        help="--split 80/10/10 keeps together what has the same here, e.g. the film it is cut from",
    )  # fmt: skip
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
    split = None if is_shares(given.split) else given.split
    if given.dataset not in FOLDERS:
        if given.dataset is None and given.annotations.is_dir():
            ways = ", ".join(f"{name} ({folder.what})" for name, folder in FOLDERS.items())
            raise ValueError(
                f"{given.annotations} is a folder{inside(given.annotations)}; name the annotation "
                f"file, or say with --dataset how its clips are described: {ways}"
            )
        return read_annotations(
            given.annotations, given.dataset,
            split=split, ids=given.ids, paragraph=given.paragraph,
        )  # fmt: skip
    if (split, given.ids, given.paragraph) != (None, None, None):
        raise ValueError("--split by name, --ids and --paragraph are for annotation files")
    return FOLDERS[given.dataset].read(given.annotations)


def _make(annotations: list[Annotation], options: MakeOptions, names: list[str]) -> MadeShards:
    """Make the shards of one folder, and say what they are."""
    made = make_shards(annotations, options)
    if names:
        with whole_file(options.out / "classes.txt") as file:
            file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    say(made.in_words(options.out), lines=True)
    return made


def _status(prog: str, made: dict[Path, MadeShards]) -> int:
    """Say what failed, and give the exit status."""
    lacking = [said for out, one in made.items() if (said := one.lacking(out))]
    return done_in_part(prog, "; ".join(lacking)) if lacking else 0


def _refuse_mixed(out: Path, splits: bool) -> None:
    """Refuse shards beside the parts of a split, and a split of what is there as a whole.

    Both read as training clips, those of the test part among them.
    """
    parts = [part for part in PARTS if (out / part / PLAN).is_file()]
    if not splits and parts:
        raise ValueError(
            f"{out} holds the parts of a split ({', '.join(parts)}); give another --out, or the "
            "same --split to go on"
        )
    if splits and (out / PLAN).is_file():
        raise ValueError(f"{out} holds shards of the whole, without --split; give another --out")


def main_make(argv: Sequence[str] | None = None, prog: str = "vmm shards make") -> int:
    """Make shards; returns 0 if every sample of them could be made, else 1."""
    given = _make_parser(prog).parse_args(argv)

    def run() -> int:
        shares = parse_shares(given.split) if is_shares(given.split) else None
        if shares is None and given.group_by is not None:
            raise ValueError("--group-by is for --split 80/10/10")
        annotations = _annotations(given)
        beside = given.annotations if given.annotations.is_dir() else given.annotations.parent
        layout = Layout(given.layout, given.short_side, given.gop, given.fps, given.quality)
        options = MakeOptions(
            given.media or beside, given.out, layout,
            given.samples_per_shard, given.workers, given.shard_range, given.ray,
        )  # fmt: skip
        _refuse_mixed(given.out, shares is not None)
        names = class_names(annotations)
        if shares is None:
            return _status(prog, {given.out: _make(annotations, options, names)})
        if given.shard_range is not None:
            raise ValueError("--shard-range makes some shards of one folder, --split three folders")
        split = split_by_video(annotations, options.media, shares, given.seed, given.group_by)
        work = [(split.items(part), replace(options, out=given.out / part)) for part in split.parts]
        for one in work:
            refuse_other(*one)
        say(split.in_words(), lines=True)
        made = {of.out: _make(items, of, names) for items, of in work}
        write_split(split, given.out)
        return _status(prog, made)

    kept = "the shards that are finished stay, the same command makes the rest"
    return run_to_status(prog, run, kept)


def main_inspect(argv: Sequence[str] | None = None, prog: str = "vmm shards inspect") -> int:
    """Count, measure and show what is in shards; returns the exit status."""
    parser = CommandParser(
        prog=prog,
        description="Count, measure and show what is in shards.",
        formatter_class=DefaultsFormatter,
    )
    add = parser.add_argument
    add("shards", nargs="+", help="paths with $VARIABLES, braces and wildcards")
    add("-o", "--out", type=Path, required=True, help="folder to write to")
    add("--pictures", type=whole(0), default=48, help="samples on the contact sheet")
    add("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    help_text = "folder of a text encoder: which captions it cuts, which words it spells out"
    add("--tokenizer", type=lambda name: Path(here_or_packaged(name)), help=help_text)
    add("--max-words", type=whole(3), default=32, help="tokens that a caption may have")
    options = InspectOptions(**vars(parser.parse_args(argv)))

    def run() -> int:
        numbers = inspect_shards(options)
        say(f"{in_words(numbers)}\npage: {options.out / 'index.html'}", lines=True)
        return 0

    return run_to_status(prog, run)
