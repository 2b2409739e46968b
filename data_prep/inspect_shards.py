"""Look into shards: counts, durations, sizes, captions, failures, and what they look like.

    python -m data_prep.inspect_shards 'data/demo/train-*.tar' -o inspected

writes ``report.json`` with every number, ``contact_sheet.png`` and ``index.html``, one page that
needs no network. Every sample is opened and one frame of it decoded; broken ones are listed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import jinja2
from tqdm import tqdm

from data_prep.contact_sheet import contact_sheet
from data_prep.folders import process_pool
from data_prep.shard_statistics import (
    ShardContent,
    Thumbnail,
    inspect_shard,
    report,
)
from vmm.command_line import CommandParser, run_to_status, whole
from vmm.data.index import scan_shard
from vmm.data.patterns import expand_shards
from vmm.text_output import say, write_text


def inspect_shards(
    patterns: str | Sequence[str], out: Path, *, pictures: int = 48, workers: int = 1
) -> dict[str, Any]:
    """Write the report, the contact sheet and the page.

    Args:
        patterns: See ``vmm.data.patterns.expand_shards``.
        out: Folder to write to.
        pictures: Samples on the contact sheet, taken at even distances.
        workers: Processes.

    Returns:
        What is in ``report.json``.

    Raises:
        ValueError: If no shard matches.
        ChildProcessError: If one died.
        KeyboardInterrupt: If it was stopped; the files describe what was read until then.
    """
    paths = expand_shards(patterns)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):  # tells in time if nothing can be written there
        pass
    contents: list[ShardContent] = []
    stopped = False
    try:
        _read(paths, pictures, workers, contents)
    except KeyboardInterrupt:
        if not contents:
            raise
        stopped = True
    numbers = report(contents)
    numbers["shards"]["unread"] = len(paths) - len(contents)
    thumbnails = [picture for content in contents for picture in content.thumbnails]
    (out / "report.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    sheet = contact_sheet(thumbnails)
    if sheet is not None:
        sheet.save(out / "contact_sheet.png")
    write_text(out / "index.html", _page(numbers, thumbnails, paths))
    if stopped:
        raise KeyboardInterrupt(f"{out} describes the first {len(contents)} of {len(paths)} shards")
    return numbers


def _read(paths: list[str], pictures: int, workers: int, contents: list[ShardContent]) -> None:
    """Append what is in the shards, in their order, as it becomes known."""
    if workers <= 1:
        chosen = _choose([_count(path) for path in paths], pictures)
        work = zip(paths, chosen, strict=True)
        for one in tqdm(list(work), unit="shard", desc="inspecting"):
            contents.append(inspect_shard(*one))
        return
    with process_pool(workers, len(paths)) as pool:
        try:
            counting = [pool.submit(_count, path) for path in paths]
            chosen = _choose([future.result() for future in counting], pictures)
            running = [pool.submit(inspect_shard, *one) for one in zip(paths, chosen, strict=True)]
            for future in tqdm(running, unit="shard", desc="inspecting"):
                contents.append(future.result())
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process died while it read a shard, perhaps for lack of memory; "
                "try fewer --workers"
            ) from error


def _count(path: str) -> int:
    try:
        return len(scan_shard(path).entries)
    except OSError:
        return 0


def _choose(counts: list[int], pictures: int) -> list[list[int]]:
    """Return, for every shard, the numbers of its samples that are pictured."""
    total = sum(counts)
    wanted = min(pictures, total)
    numbers = [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]
    chosen, start = [], 0
    for count in counts:
        chosen.append([n - start for n in numbers if start <= n < start + count])
        start += count
    return chosen


def _page(numbers: dict[str, Any], thumbnails: Sequence[Thumbnail], paths: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = _bytes
    environment.filters["number"] = _number
    pictures = [
        {"key": t.key, "caption": t.caption, "data": base64.b64encode(t.jpeg).decode("ascii")}
        for t in thumbnails
    ]
    return environment.get_template("shards.html.j2").render(
        numbers=numbers, pictures=pictures, first=paths[0], last=paths[-1]
    )


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1000
    return f"{value:.4g} TB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _text(numbers: dict[str, Any]) -> str:
    """Say in a few lines what there is."""
    shards, samples, captions = numbers["shards"], numbers["samples"], numbers["captions"]
    problems = ", ".join(f"{n} {reason}" for reason, n in numbers["problems"]["by_reason"].items())
    seconds = numbers["media"]["seconds"]
    return (
        f"{shards['count']} shards, {_bytes(shards['bytes'])}, {len(shards['damaged'])} damaged\n"
        f"{samples['count']} samples ({samples['video']} videos, {samples['image']} images), "
        f"{samples['usable']} usable; problems: {problems or 'none'}\n"
        f"{seconds.get('total', 0) / 3600:.2f} hours, median {seconds.get('median', 0):.3g} s\n"
        f"{captions['count']} captions, {captions['distinct']} different, "
        f"median {captions['words'].get('median', 0)} words"
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m data_prep.inspect_shards",
        description="Count, measure and show what is in shards.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("shards", nargs="+", help="paths with $VARIABLES, braces and wildcards")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--pictures", type=whole(0), default=48, help="samples on the contact sheet"
    )
    parser.add_argument("--workers", type=whole(0, 1024), default=os.cpu_count(), help="processes")
    options = parser.parse_args(argv)
    return run_to_status("data_prep.inspect_shards", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    numbers = inspect_shards(
        options.shards, options.out, pictures=options.pictures, workers=options.workers
    )
    say(f"{_text(numbers)}\npage: {options.out / 'index.html'}", lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
