"""Vectors as an exact index of FAISS, beside it the moments as JSON lines. Extra ``faiss``.

FAISS knows a moment by its number: line ``n`` of ``NAME.jsonl``, from 0, is the moment ``n``.
"""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np

from vmm.search.stores.table import Table, with_names
from vmm.text_output import number_of
from vmm.whole import whole_file


def write(table: Table, out: Path) -> list[str]:
    """Write ``NAME.faiss``, an ``IndexFlatIP``, and ``NAME.jsonl``."""
    index = faiss.IndexFlatIP(table.settings.embedding_dim)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = out.with_suffix(".jsonl")
    with whole_file(out) as path, whole_file(rows) as lines:
        with lines.open("w") as file:
            for chunk, columns in with_names(table):
                index.add(np.ascontiguousarray(chunk.vectors, np.float32))
                for values in zip(*columns.values(), strict=True):
                    file.write(json.dumps(dict(zip(columns, values, strict=True))) + "\n")
        faiss.write_index(index, str(path))
    return [f"wrote {number_of(table.rows, 'vector')} to {out}, their moments to {rows}"]
