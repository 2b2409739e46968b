"""``vmm vectors export`` and ``import``; torch is loaded when they have begun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.command_line import CommandParser
from vmm.search.kinds import kind_of
from vmm.search.stores.registry import READABLE, STORES
from vmm.text_output import number_of, say

if TYPE_CHECKING:
    from vmm.search.stores.table import Chunk


def main_export(argv: Sequence[str]) -> int:
    """``vmm vectors export``; returns the exit status."""
    listed = "\n".join(f"  {end:<10} {kind.about}" for end, kind in STORES.items())
    parser = CommandParser(
        prog="vmm vectors export",
        description="Write the vectors of an index, each of length 1, with the moment it is of.",
        epilog=f"kinds:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", type=Path, help="folder of the index")
    parser.add_argument("out", type=Path, help="file or folder to write, by the end of its name")
    options = parser.parse_args(argv)
    write = kind_of(STORES, str(options.out), "OUT").load(f"OUT {options.out}")

    from tqdm import tqdm

    from vmm.search.index import Index
    from vmm.search.stores.table import table_of

    table = table_of(Index.open(options.index))
    if not table.rows:
        raise ValueError(f"{options.index} holds no moments; `vmm encode` fills it")
    with tqdm(total=table.rows, unit="vector", disable=not sys.stderr.isatty()) as bar:

        def counted() -> Iterator[Chunk]:
            for chunk in table.chunks:
                yield chunk
                bar.update(len(chunk.video))

        said = write(replace(table, chunks=counted()), options.out)
    say("\n".join(said), lines=True)
    return 0


def main_import(argv: Sequence[str]) -> int:
    """``vmm vectors import``; returns the exit status."""
    parser = CommandParser(
        prog="vmm vectors import",
        description="Make an index of vectors that `vmm vectors export` wrote, perhaps elsewhere. "
        "They belong to the encoder that made them; an index of any other refuses them.",
    )
    add = parser.add_argument
    add("vectors", type=Path, help=f"file of vectors: {' or '.join(READABLE)}")
    add("index", type=Path, help="folder of the new index")
    add("--encoder", help="where the encoder is now, which is checked (default: where it was)")
    options = parser.parse_args(argv)
    read = kind_of(READABLE, str(options.vectors), "VECTORS").load(f"VECTORS {options.vectors}")

    from vmm.search.stores.importing import import_vectors

    table = read(options.vectors)
    if options.encoder:
        from vmm.export.encoder import VideoTextEncoder

        encoder = VideoTextEncoder.from_pretrained(options.encoder)
        table.check_encoder(encoder.fingerprint, options.encoder)
        folder = str(encoder.folder.resolve())
        table = replace(table, settings=replace(table.settings, encoder=folder))
    normalised = import_vectors(table, options.index)
    videos = sum(record.count > 0 for record in table.records)
    moments = number_of(table.rows, "moment")
    say(f"{options.index} has {moments} of {number_of(videos, 'video')}")
    if normalised:
        said = number_of(normalised, "vector was", "vectors were")
        say(f"{said} not of length 1, and normalised")
    return 0
