"""Moments that somebody keeps, and files of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from vmm.search.app.words import named, scores
from vmm.search.outputs.files import FEWER, FILMS_INSTEAD
from vmm.search.outputs.registry import load_output
from vmm.search.query import Hit
from vmm.search.results import Result, as_json

KINDS = (".csv", ".json", ".edl", ".vtt")
"""Ends of the names of the files that favourites are written to."""

_ON_PAGE = {FILMS_INSTEAD: "CSV and JSON have them, too", FEWER: "remove some"}
"""What helps whoever has a page and no command."""

Favourites = list[tuple[str, Hit]]
"""What was searched when a moment was kept, and the moment; in the order of keeping."""


def kept(favourites: Favourites, text: str, hits: list[Hit]) -> Favourites:
    """Add moments, each once."""
    there = {(hit.source, hit.start, hit.end) for _, hit in favourites}
    new = [hit for hit in hits if (hit.source, hit.start, hit.end) not in there]
    return favourites + [(text, hit) for hit in new]


def lines(favourites: Favourites) -> list[str]:
    """Describe each in a line."""
    return [
        f"{number}. {named(hit)}, {hit.when} ({scores(hit)}): {text}"
        for number, (text, hit) in enumerate(favourites, 1)
    ]


def results_of(favourites: Favourites) -> list[Result]:
    """Return them by query, as ``vmm search`` writes many queries."""
    queries = dict.fromkeys(text for text, _ in favourites)
    return [
        Result(str(number), text, "", [hit for said, hit in favourites if said == text])
        for number, text in enumerate(queries, 1)
    ]


def files_of(favourites: Favourites, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Write favourites to a file of each kind, or to an archive where a kind takes several.

    Args:
        favourites: The moments, at least one.
        folder: For the files, of which there is one folder for each list.

    Returns:
        End of the name -> the file, and sentences on what is left out.
    """
    results = results_of(favourites)
    place = folder / hashlib.sha256(as_json(results).encode()).hexdigest()[:32]
    files, said = {}, []
    for kind in KINDS:
        out = place / kind[1:] / f"favourites{kind}"
        try:
            told = load_output(out.name)(results, out)
        except ValueError as error:  # e.g. editors cannot open a film inside of a shard
            said.append(f"no {kind[1:].upper()}: {error}")
            continue
        said += [line for line in told if not line.startswith("wrote ")]
        files[kind] = out if out.exists() else _packed(out)
    for command, page in _ON_PAGE.items():
        said = [line.replace(command, page) for line in said]
    return files, list(dict.fromkeys(said))


def _packed(out: Path) -> Path:
    """Put the files that stand for one into an archive beside them."""
    archive = out.with_suffix(".zip")
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for path in sorted(out.parent.glob(f"*{out.suffix}")):
            file.write(path, path.name)
    return archive
