"""``vmm search``; torch is loaded when it has begun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.command_line import CommandParser, done_in_part, finite, whole
from vmm.reranking import CANDIDATES
from vmm.text_output import complain, number_of, say

if TYPE_CHECKING:
    from vmm.search.asked import Asked
    from vmm.search.find import Query
    from vmm.search.query import Searcher
    from vmm.search.results import Result

_SHOWN_PROBLEMS = 20
_ANY = "any"
_SHARED = (
    *("top", "rerank", "rank_by", "folder", "after", "before"),
    *("min_duration", "max_duration"),
)
"""Options that hold for all queries of a call."""


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        prog="vmm search",
        description="Find moments of videos by a sentence, by a video, or by both.",
    )
    add = parser.add_argument
    add("index", type=Path, help="folder of the index")
    add("text", nargs="?", help="what to look for")
    add("--video", type=Path, help="look for moments like this video; with a sentence, for both")
    add(
        "--queries",
        type=Path,
        metavar="FILE",
        help="many queries: a sentence in each line, or a table (.csv, .jsonl, .parquet, ...) with "
        "the columns text or video, and id",
    )
    add("--top", type=whole(1), default=10, help="how many moments (default: %(default)s)")
    add(
        "--rerank",
        type=whole(0),
        nargs="?",
        default=0,
        const=CANDIDATES,
        metavar="N",
        help="let the matching head look at the frames of the best N again "
        "(without N: %(const)s, or all if there are fewer)",
    )
    add(
        "--rank-by",
        choices=("mixture", "matching"),
        default="mixture",
        help="order these by the mixture of similarity and matching, or by matching alone "
        "(default: %(default)s)",
    )
    add("--folder", help="only videos in this folder or shard; a part of a path, * and ? will do")
    add("--after", type=finite, metavar="S", help="only moments after this second of their video")
    add("--before", type=finite, metavar="S", help="only moments before it")
    add("--min-duration", type=finite, metavar="S", help="only videos of at least S seconds")
    add("--max-duration", type=finite, metavar="S", help="only videos of at most S seconds")
    add("--encoder", help="where the index's encoder is now (default: where it was)")
    add("--approximate", action="store_true", help="look in the lists of vmm index --approximate")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--csv", action="store_true", help="print as CSV")
    add(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write the moments to .edl, .otio (timelines for editors), .vtt (chapters), .csv, "
        ".json, or as films into a folder: NAME/; may come several times",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """``vmm search``; returns the exit status."""
    options = _options(argv)
    blank = options.text is not None and not options.text.strip()
    single = options.text is not None or options.video is not None
    if blank or single == (options.queries is not None):
        raise ValueError(
            "say what to look for: a sentence, --video FILE or both, or many with --queries FILE"
        )
    if options.rank_by != "mixture" and not options.rerank:
        raise ValueError(f"--rank-by {options.rank_by} is for what --rerank N looks at; give both")

    from vmm.search.index import read_settings
    from vmm.search.kinds import kind_of
    from vmm.search.outputs.registry import OUTPUTS

    read_settings(options.index)  # what can be told before torch is loaded
    for out in options.out:
        kind_of(OUTPUTS, out, "--out")
    if options.queries is not None and not options.queries.is_file():
        raise ValueError(f"--queries {options.queries} is not a file; give one of sentences")

    from vmm.search.asked import Asked, read_queries
    from vmm.search.find import Query
    from vmm.search.outputs.registry import load_output
    from vmm.search.query import Searcher

    outputs = [(load_output(out), Path(out)) for out in options.out]
    like = Query(text=_ANY, **{name: getattr(options, name) for name in _SHARED})
    if options.queries is not None:
        asked, odd = read_queries(options.queries)
    else:
        asked, odd = [Asked("1", options.text, options.video)], []
        asked[0].query(like)  # its mistakes are told before anything is loaded
    searcher = Searcher.open(options.index, options.encoder, approximate=options.approximate)
    results, problems = _answered(searcher, asked, like)
    _show(results, options)
    if unread := searcher.unread([one.text for one in asked if one.text]):
        complain(unread)
    if not searcher.sources:
        complain(f"{options.index} holds no moments; `vmm encode` fills it")
    elif nothing := [result.id for result in results if not result.hits]:
        which = f" for: {', '.join(nothing)}" if options.queries else ""
        complain(f"the filters leave no moment of {options.index}{which}")
    for title, wrong in (("rows left out", odd), ("queries not answered", problems)):
        if wrong:
            more = "\n  ..." if len(wrong) > _SHOWN_PROBLEMS else ""
            listed = "\n  ".join(wrong[:_SHOWN_PROBLEMS])
            complain(f"{title}: {len(wrong)}\n  {listed}{more}")
    for write, out in outputs:
        for line in write(results, out):
            complain(line)
    if lacking := len(odd) + len(problems):
        asked_for = number_of(lacking + len(results), "query", "queries")
        return done_in_part("vmm search", f"{lacking} of {asked_for} not answered, as listed above")
    return 0


def _answered(
    searcher: Searcher, asked: Sequence[Asked], like: Query
) -> tuple[list[Result], list[str]]:
    """Find what is asked, one query after the other.

    Returns:
        What was found, and why the other queries cannot be answered.

    Raises:
        ValueError: If none can.
    """
    from tqdm import tqdm

    from vmm.search.find import find
    from vmm.search.results import Result

    results, problems = [], []
    for one in tqdm(asked, unit="query", disable=len(asked) == 1 or not sys.stderr.isatty()):
        video = "" if one.video is None else str(one.video)
        try:
            hits = find(searcher, one.query(like))
        except ValueError as error:
            problems.append((one.id, str(error)))
        else:
            results.append(Result(one.id, one.text or "", video, hits))
    if not results:
        raise ValueError(problems[0][1])
    return results, [f"{name}: {problem}" for name, problem in problems]


def _show(results: Sequence[Result], options: argparse.Namespace) -> None:
    from vmm.search.results import as_csv, as_json, as_table

    if options.json or options.csv:
        text = as_json(results) if options.json else as_csv(results)
        say(text.removesuffix("\n"), lines=True)
    elif table := as_table(results):
        say(table, lines=True)
