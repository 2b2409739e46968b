"""``vmm encode``; torch is loaded when it has begun."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vmm.command_line import CommandParser, done_in_part, positive, whole
from vmm.hub import refuse_no_folder
from vmm.search.inspecting import print_problems
from vmm.text_output import complain, number_of, say

if TYPE_CHECKING:
    from vmm.export.encoder import VideoTextEncoder
    from vmm.search.encode import Counts
    from vmm.search.index import Index, Settings

WINDOW_S = 8.0
STRIDE_S = 4.0
_EVERY_S = 10.0


def main(argv: Sequence[str]) -> int:
    """``vmm encode``; returns the exit status."""
    options = _options(argv)
    share = _share(options.shard)
    if options.ray and share != (0, 1):
        raise ValueError(f"--ray {options.ray} leaves --shard to it; give one of the two")
    if options.watch and (options.ray or share != (0, 1)):
        raise ValueError("--watch is for one process; leave --ray and --shard out")

    from vmm.search import shots
    from vmm.search.index import Index, read_settings

    there = read_settings(options.out) if (options.out / "index.json").exists() else None
    if not options.encoder and there is None:
        raise ValueError(f"{options.out} is new; say --encoder FOLDER (`vmm export` makes one)")
    if options.shots:
        shots.check_installed()  # before torch is loaded
    refuse_no_folder(options.encoder or there.encoder)  # type: ignore[union-attr]

    from vmm.export.encoder import VideoTextEncoder
    from vmm.search.encode import Share, encode_videos
    from vmm.search.sources import find_sources

    encoder = VideoTextEncoder.from_pretrained(options.encoder or there.encoder)  # type: ignore[union-attr]
    settings = _settings(options, there, encoder)
    if there is None and not options.watch:
        find_sources(options.clips)  # an index made for nothing would bind the next try
    index = Index.create(options.out, settings)
    how = {"batch_size": options.batch_size, "progress": sys.stderr.isatty()}
    if options.watch:
        _watch(index, encoder, options, how)
    if options.ray:
        from vmm.search.on_ray import encode_on_ray

        counts = encode_on_ray(options.out, encoder.folder, options.clips, options.ray, **how)
    else:
        counts = encode_videos(index, encoder, options.clips, share=Share(*share), **how)
    index = Index.open(options.out)
    say(_sentence(counts, index))
    if counts.pace:
        say(counts.pace)
    print_problems((str(source), problem) for source, problem in index.problems.items())
    roots = [path.resolve() for path in options.clips]
    mine = (source for source in index.problems if source.share(share[1]) == share[0])
    if lacking := sum(any(map(source.is_in, roots)) for source in mine):
        named = "could not be encoded, or not to the end; see the problems above"
        return done_in_part("vmm encode", f"{number_of(lacking, 'video')} {named}")
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="vmm encode",
        description="Encode videos into an index, or bring one up to date: only what is new or has "
        "changed is encoded, what is gone is forgotten. May be stopped at any time and run again.",
    )
    add = parser.add_argument
    add("clips", type=Path, nargs="+", help="videos, .tar shards, or folders of them")
    add("-o", "--out", type=Path, required=True, metavar="INDEX", help="folder of the index")
    add("--encoder", help="encoder folder, or OWNER/NAME on the hub (default: the index's)")
    add("--window", type=positive, help=f"seconds of a moment (default: {WINDOW_S:g})")
    add("--stride", type=positive, help=f"seconds from moment to moment (default: {STRIDE_S:g})")
    add(
        "--shots",
        action="store_true",
        default=None,
        help="moments are shots, from cut to cut; longer ones than --window in equal pieces",
    )
    add("--num-frames", type=whole(1), help="frames looked at in a moment (default: as trained)")
    add(
        "--batch-size",
        type=whole(1),
        default=8,
        help="moments encoded at once (default: %(default)s)",
    )
    add(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="do the I-th of N shares of the videos; processes on any machines, each with its "
        "share, fill one index together",
    )
    add(
        "--ray",
        type=whole(0),
        default=0,
        metavar="N",
        help="cut the work into N shares for a Ray cluster whose machines see the same paths",
    )
    add(
        "--watch",
        type=positive,
        nargs="?",
        const=_EVERY_S,
        metavar="SECONDS",
        help="go on, looking for new and changed videos every so many seconds (default: "
        "%(const)s); those that are being written wait until they are whole",
    )
    return parser.parse_args(argv)


def _settings(
    options: argparse.Namespace, there: Settings | None, encoder: VideoTextEncoder
) -> Settings:
    """Return what was said, or what the index has, or what is usual."""
    from vmm.search import shots
    from vmm.search.index import Settings

    usual = {"window": WINDOW_S, "stride": STRIDE_S, "num_frames": None, "shots": False}
    how_cut: dict[str, Any] = {
        name: getattr(there, name, value) if (said := getattr(options, name)) is None else said
        for name, value in usual.items()
    }
    if how_cut["shots"]:
        shots.check_installed()
        if options.stride is not None:
            raise ValueError(
                f"--stride {options.stride:g} is for moments that overlap, and shots do not; leave "
                "it out"
            )
        how_cut["stride"] = how_cut["window"]
    folder = str(encoder.folder.resolve())
    settings = Settings(encoder.fingerprint, folder, encoder.embedding_dim, **how_cut)
    if settings.stride > settings.window:
        raise ValueError(
            f"--stride {settings.stride:g} leaves gaps between moments of {settings.window:g} s; "
            "make it at most --window"
        )
    return settings


def _watch(
    index: Index, encoder: VideoTextEncoder, options: argparse.Namespace, how: dict[str, Any]
) -> NoReturn:
    """Watch until a signal ends it."""
    from vmm.search.watch import watch_videos

    say(f"watching every {options.watch:g} s; Ctrl-C stops")
    sys.stdout.flush()
    problems = dict(index.problems)

    def report(counts: Counts) -> None:
        index.reload()
        say(f"{time.strftime('%H:%M:%S')} {_sentence(counts, index)}")
        new = {s: p for s, p in index.problems.items() if problems.get(s) != p}
        print_problems((str(source), problem) for source, problem in new.items())
        problems.update(new)
        sys.stdout.flush()

    watch_videos(index, encoder, options.clips, report, complain, every=options.watch, **how)


def _sentence(counts: Counts, index: Index) -> str:
    """Say what a run did, and what there is now."""
    videos = sum(video.record.count > 0 for video in index.videos.values())
    failed = f"{counts.failed} failed, " if counts.failed else ""
    return (
        f"{number_of(counts.encoded, 'video')} encoded, {failed}"
        f"{counts.reused} known by their content, {counts.unchanged} unchanged, "
        f"{counts.removed} removed; {index.folder} has "
        f"{number_of(index.num_moments, 'moment')} of {number_of(videos, 'video')}"
    )


def _share(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--shard {text} must be I/N with I from 1 to N, e.g. 1/4")
    return int(number) - 1, int(of)
