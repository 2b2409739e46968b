"""``vmm encode``, ``index`` and ``app``; torch is loaded when they have begun."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmm.command_line import CommandParser, positive, whole
from vmm.text_output import say

WINDOW_S = 8.0
STRIDE_S = 4.0
_SHOWN_PROBLEMS = 20


def _encode_options(argv: Sequence[str]) -> argparse.Namespace:
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
    return parser.parse_args(argv)


def main_encode(argv: Sequence[str]) -> int:
    """``vmm encode``; returns the exit status."""
    options = _encode_options(argv)
    share = _share(options.shard)
    if options.ray and share != (0, 1):
        raise ValueError(f"--ray {options.ray} leaves --shard to it; give one of the two")

    from vmm.export.encoder import VideoTextEncoder
    from vmm.search.encode import Share, encode_videos
    from vmm.search.index import Index, Settings, read_settings
    from vmm.search.sources import find_sources

    there = read_settings(options.out) if (options.out / "index.json").exists() else None
    if not options.encoder and there is None:
        raise ValueError(f"{options.out} is new; say --encoder FOLDER (`vmm export` makes one)")
    encoder = VideoTextEncoder.from_pretrained(options.encoder or there.encoder)  # type: ignore[union-attr]
    usual = {"window": WINDOW_S, "stride": STRIDE_S, "num_frames": None}
    how_cut: dict[str, Any] = {
        name: getattr(there, name, value) if (said := getattr(options, name)) is None else said
        for name, value in usual.items()
    }
    folder = str(encoder.folder.resolve())
    settings = Settings(encoder.fingerprint, folder, encoder.embedding_dim, **how_cut)
    if settings.stride > settings.window:
        raise ValueError(
            f"--stride {settings.stride:g} leaves gaps between moments of {settings.window:g} s; "
            "make it at most --window"
        )
    if there is None:
        find_sources(options.clips)  # an index made for nothing would bind the next try
    index = Index.create(options.out, settings)
    how = {"batch_size": options.batch_size, "progress": sys.stderr.isatty()}
    if options.ray:
        from vmm.search.on_ray import encode_on_ray

        counts = encode_on_ray(options.out, encoder.folder, options.clips, options.ray, **how)
    else:
        counts = encode_videos(index, encoder, options.clips, share=Share(*share), **how)
    index = Index.open(options.out)
    say(
        f"{counts.encoded} videos encoded, {counts.unchanged} unchanged, {counts.removed} removed; "
        f"{options.out} has {index.num_moments} moments of {len(index.videos)} videos"
    )
    _print_problems((str(source), problem) for source, problem in index.problems.items())
    return 0


def main_index(argv: Sequence[str]) -> int:
    """``vmm index``; returns the exit status."""
    parser = CommandParser(prog="vmm index", description="Show what is in an index.")
    add = parser.add_argument
    add("index", type=Path, help="folder of the index")
    add("--verify", action="store_true", help="read it all, and look for changed videos; 1 if any")
    add("--compact", action="store_true", help="write all parts as one")
    add("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(argv)

    from vmm.search.index import Index

    index = Index.open(options.index)
    if options.compact:
        index.compact()
    wrong = index.verify() if options.verify else []
    records = [video.record for video in index.videos.values()]
    facts: dict[str, Any] = {
        **asdict(index.settings),
        "videos": sum(record.count > 0 for record in records),
        "unfinished": sum(not record.done for record in records),
        "moments": index.num_moments,
        "hours": sum(record.seconds for record in records) / 3600,
        "megabytes": index.num_bytes / 1e6,
        "parts": len(index.parts),
    }
    problems = [(str(source), problem) for source, problem in index.problems.items()]
    if options.json:
        say(json.dumps({**facts, "problems": problems, "wrong": wrong}, indent=2), lines=True)
        return int(bool(wrong))
    for name, value in facts.items():
        say(f"{name:<14} {value:.3f}" if isinstance(value, float) else f"{name:<14} {value}")
    _print_problems(problems)
    for line in wrong:
        say(line)
    if options.verify and not wrong:
        say("verified: nothing is wrong")
    return int(bool(wrong))


def main_app(argv: Sequence[str]) -> int:
    """``vmm app``; returns the exit status."""
    parser = CommandParser(
        prog="vmm app",
        description="Serve a page to search an index with: type a sentence or drop a clip, see the "
        "moments play, ask about a video of your own. Nothing is loaded from or sent elsewhere.",
    )
    add = parser.add_argument
    add("index", type=Path, help="folder of the index")
    add("--encoder", help="where the index's encoder is now (default: where it was)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than the default let other machines see the indexed "
        "videos (default: %(default)s)",
    )
    add("--port", type=whole(1, 65535), default=7860, help="default: %(default)s")
    add("--max-upload-mb", type=whole(1), default=200, help="default: %(default)s")
    options = parser.parse_args(argv)

    try:
        from vmm.search.app import serve
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the page needs the package {error.name!r}; install the extra: "
            'pip install "vmm-video[app]"'
        ) from error
    from vmm.search.query import Searcher

    searcher = Searcher.open(options.index, options.encoder)
    serve(searcher, options.host, options.port, options.max_upload_mb)
    return 0


def _print_problems(problems: Iterable[tuple[str, str]]) -> None:
    listed = sorted(problems)
    if not listed:
        return
    say(f"problems: {len(listed)}")
    for name, problem in listed[:_SHOWN_PROBLEMS]:
        say(f"  {name}: {problem}")
    if len(listed) > _SHOWN_PROBLEMS:
        kinds = Counter(problem.partition(":")[0] for _, problem in listed[_SHOWN_PROBLEMS:])
        rest = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        say(f"  and {rest}; `vmm index INDEX --json` lists all")


def _share(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--shard {text} must be I/N with I from 1 to N, e.g. 1/4")
    return int(number) - 1, int(of)
