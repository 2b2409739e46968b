"""Looking into shards: every sample is opened and one frame of it decoded; broken ones are listed.

A folder gets ``report.json`` with every number, ``contact_sheet.png`` and ``index.html``, one page
that needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile

from tqdm import tqdm

from vmm.data.index import scan_shard
from vmm.data.patterns import expand_shards
from vmm.pages import data_uri, render
from vmm.shards.contact_sheet import contact_sheet
from vmm.shards.processes import process_pool
from vmm.shards.shard_statistics import ShardContent, ShardReport, inspect_shard, report
from vmm.shards.tokenizer_folder import read_tokenizer
from vmm.text_output import lasting, number_of, write_text
from vmm.wording import check_captions

_TOKENISED = 100_000
"""Captions that are tokenised, at even distances."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class InspectOptions:
    """What is inspected, and what becomes of it.

    Args:
        shards: See ``vmm.data.patterns.expand_shards``.
        out: Folder to write to.
        pictures: Samples on the contact sheet, taken at even distances.
        workers: Processes.
        tokenizer: Folder of the tokenizer that will read the captions, to see which of them it
            cuts, and which words it spells out; see ``vmm.shards.tokenizer_folder``.
        max_words: Tokens that a caption may have.
    """

    shards: str | Sequence[str]
    out: Path
    pictures: int = 48
    workers: int = 1
    tokenizer: Path | None = None
    max_words: int = 32


def inspect_shards(options: InspectOptions) -> ShardReport:
    """Write the report, the contact sheet and the page.

    Returns:
        What is in ``report.json``.

    Raises:
        ValueError: If no shard matches.
        ChildProcessError: If one died.
        KeyboardInterrupt: If it was stopped; the files describe what was read until then.
    """
    out, paths = options.out, expand_shards(options.shards)
    tokenize = None if options.tokenizer is None else read_tokenizer(options.tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):  # tells in time if nothing can be written there
        pass
    contents: list[ShardContent] = []
    stopped = False
    try:
        _read(paths, options.pictures, options.workers, contents)
    except KeyboardInterrupt:
        if not contents:
            raise
        stopped = True
    numbers = report(contents, unread=len(paths) - len(contents))
    if tokenize is not None:
        texts = [text for content in contents for own in content.captions for text in own]
        some = texts[:: 1 + len(texts) // _TOKENISED]
        check = check_captions(some, tokenize, options.max_words, tokenize.unknown)
        numbers.captions["tokenizer"] = asdict(check) | {"said": [*check.said().values()]}
    thumbnails = [one for content in contents for one in content.thumbnails]
    text = json.dumps(asdict(numbers), indent=1)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    sheet = contact_sheet(thumbnails)
    if sheet is not None:
        sheet.save(out / "contact_sheet.png")
    pictures = [
        (one.file or one.key, one.key, one.caption, data_uri("image/jpeg", one.jpeg))
        for one in thumbnails
    ]
    page = render(
        "shards.html.j2", _TEMPLATES,
        filters={"bytes": _bytes, "number": _number, "lasting": lasting},
        numbers=numbers, pictures=pictures, first=paths[0], last=paths[-1], said=_said(numbers),
    )  # fmt: skip
    write_text(out / "index.html", page)
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


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1000
    return f"{value:.4g} TB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _said(numbers: ShardReport) -> list[str]:
    """What the tokenizer makes of the captions, if there is one."""
    said: list[str] = numbers.captions.get("tokenizer", {}).get("said", [])
    return said


def in_words(numbers: ShardReport) -> str:
    """Say in a few lines what there is."""
    shards, samples, captions = numbers.shards, numbers.samples, numbers.captions
    problems = ", ".join(f"{n} {reason}" for reason, n in numbers.problems["by_reason"].items())
    seconds = numbers.media["seconds"]
    said = _said(numbers)
    return (
        f"{number_of(shards['count'], 'shard')}, {_bytes(shards['bytes'])}, "
        f"{len(shards['damaged'])} damaged\n"
        f"{number_of(samples['count'], 'sample')} ({number_of(samples['video'], 'video')}, "
        f"{number_of(samples['image'], 'image')}), {samples['usable']} usable; "
        f"problems: {problems or 'none'}\n"
        f"{lasting(seconds.get('total', 0))}, median {seconds.get('median', 0):.3g} s\n"
        f"{number_of(captions['count'], 'caption')}, {captions['distinct']} different, "
        f"median {number_of(captions['words'].get('median', 0), 'word')}"
        + "".join(f"\n{s}" for s in said)
    )
