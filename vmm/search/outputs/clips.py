"""Hits as small films in a folder, with ``hits.json``: rows of hits with the name of their film."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vmm.data.decode import DecodeError
from vmm.search.cut import cut_moment
from vmm.search.outputs.files import safe_name, some_of, unique_name
from vmm.search.results import Result, rows
from vmm.text_output import number_of
from vmm.whole import whole_folder


def write(results: Sequence[Result], out: Path) -> list[str]:
    """Cut films: MP4, see ``cut_moment``. A row has its film as ``clip``, or a ``problem``.

    Args:
        results: What was found.
        out: Folder to create, whole or not at all; it may exist if it is empty.

    Raises:
        ValueError: If the folder is not empty, or no hit can be read.
    """
    hits = [hit for result in results for hit in result.hits]
    listed = list(rows(results))
    if not hits:
        raise ValueError("there are no hits to write; try other words")
    problems: list[str] = []
    names: set[str] = set()
    with whole_folder(out) as folder:
        bar = tqdm(zip(listed, hits, strict=True), total=len(hits), disable=not sys.stderr.isatty())
        for row, hit in bar:
            stem = safe_name(Path(hit.source.member or hit.source.path.name).stem)
            query = f"{safe_name(row['query'])}_" if len(results) > 1 else ""
            times = f"{hit.start:.1f}-{hit.end:.1f}s"
            name = unique_name(f"{query}{row['rank']:03d}_{stem}_{times}", names) + ".mp4"
            try:
                film = cut_moment(hit.source.content(), hit.start, hit.end)
            except (DecodeError, OSError) as error:
                row["problem"] = str(error)
                problems.append(f"{hit.source}: {error}")
                continue
            (folder / name).write_bytes(film)
            row["clip"] = name
        if len(problems) == len(hits):
            raise ValueError(f"none of the hits can be cut: {problems[0]}")
        (folder / "hits.json").write_text(json.dumps(listed, indent=2) + "\n")
    films = number_of(len(hits) - len(problems), "film")
    said = [f"wrote {films} and hits.json to {out}"]
    if problems:
        of = number_of(len(hits), "hit")
        said.append(f"left out {len(problems)} of {of}: {some_of(problems)}")
    return said
