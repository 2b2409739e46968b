"""``vmm index``: what is in one, whether it is whole, what is in it twice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.command_line import CommandParser, positive
from vmm.text_output import number_of, say

if TYPE_CHECKING:
    from vmm.search.index import Index

_SHOWN = 20
_THRESHOLD = 0.95  # of vmm.search.duplicates, which loads more than options need


def main(argv: Sequence[str]) -> int:
    """``vmm index``; returns the exit status."""
    parser = CommandParser(prog="vmm index", description="Show what is in an index.")
    add = parser.add_argument
    add("index", type=Path, help="folder of the index")
    add("--verify", action="store_true", help="read it all, and look for changed videos; 1 if any")
    add("--compact", action="store_true", help="write all parts as one; lists must be made again")
    add(
        "--approximate",
        action="store_true",
        help="make the lists that vmm search --approximate looks in; again after much has changed. "
        "They hold all vectors once more: the index takes twice as much of the disk",
    )
    add(
        "--duplicates",
        type=positive,
        nargs="?",
        const=_THRESHOLD,
        metavar="COSINE",
        help="list pairs of videos of which at least half shows the same: moments whose vectors "
        "have this cosine or more (default: %(const)s)",
    )
    add("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(argv)

    from vmm.search.index import Index

    index = Index.open(options.index)
    if options.duplicates is not None:
        return _print_duplicates(index, options.duplicates, options.json)
    from vmm.search.approximate import make_lists, remove_lists, verify_lists

    if options.compact:
        index.compact()
        remove_lists(index)  # they know none of its parts
    if options.approximate:
        make_lists(index)
    wrong = [*index.verify(), *verify_lists(index)] if options.verify else []
    facts = _facts(index)
    problems = [(str(source), problem) for source, problem in index.problems.items()]
    if options.json:
        say(json.dumps({**facts, "problems": problems, "wrong": wrong}, indent=2), lines=True)
        return int(bool(wrong))
    for name, value in facts.items():
        say(f"{name:<14} {_in_words(value)}")
    print_problems(problems)
    for line in wrong:
        say(line)
    if options.verify and not wrong:
        say("verified: nothing is wrong")
    return int(bool(wrong))


def _facts(index: Index) -> dict[str, Any]:
    from vmm.search.approximate import size_of_lists

    listed, size = size_of_lists(index)
    records = [video.record for video in index.videos.values()]
    found = [record for record in records if record.count]
    return {
        **asdict(index.settings),
        "videos": len(found),
        "unfinished": sum(not record.done for record in records),
        "moments": index.num_moments,
        "listed": listed,
        "hours": sum(record.seconds for record in found) / 3600,
        "megabytes": index.num_bytes / 1e6,
        "list_megabytes": size / 1e6,
        "parts": len(index.parts),
    }


def _in_words(value: Any) -> str:
    if value is None:  # of the settings, num_frames alone
        return "as the encoder was trained"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _print_duplicates(index: Index, threshold: float, as_json: bool) -> int:
    from vmm.search.duplicates import find_duplicates

    pairs, total = find_duplicates(index, threshold, progress=sys.stderr.isatty())
    if as_json:
        rows = [
            {
                **asdict(pair),
                "first": str(pair.first),
                "second": str(pair.second),
            }
            for pair in pairs
        ]
        say(
            json.dumps({"threshold": threshold, "found": total, "pairs": rows}, indent=2),
            lines=True,
        )
        return 0
    for pair in pairs:
        how = "same bytes" if pair.same_bytes else f"{pair.similarity:.3f}"
        say(f"{pair.share:5.0%}  {how:<10}  {pair.first}  {pair.second}")
    more = f"; these are the {len(pairs)} surest" if total > len(pairs) else ""
    pairs_of = number_of(total, "pair of videos shows", "pairs of videos show")
    say(f"{pairs_of} the same at a cosine of {threshold:g} or more{more}")
    return 0


def print_problems(problems: Iterable[tuple[str, str]]) -> None:
    """Print what could not be encoded: some by name, the others counted."""
    listed = sorted(problems)
    if not listed:
        return
    say(f"problems: {len(listed)}")
    for name, problem in listed[:_SHOWN]:
        say(f"  {name}: {problem}")
    if len(listed) > _SHOWN:
        kinds = Counter(problem.partition(":")[0] for _, problem in listed[_SHOWN:])
        rest = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        say(f"  and {rest}; `vmm index INDEX --json` lists all")
