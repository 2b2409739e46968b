"""Vectors as a database of LanceDB, with the table ``moments``. Extra ``lancedb``."""

from __future__ import annotations

from pathlib import Path

import lancedb

from vmm.search.stores.parquet_file import batches_of, schema_of
from vmm.search.stores.table import Table
from vmm.text_output import number_of
from vmm.whole import whole_folder

TABLE = "moments"


def write(table: Table, out: Path) -> list[str]:
    """Write a folder; its columns and metadata are those of the Parquet file."""
    with whole_folder(out) as folder:
        database = lancedb.connect(str(folder))
        database.create_table(TABLE, data=batches_of(table), schema=schema_of(table))
    return [f"wrote {number_of(table.rows, 'vector')} to {out}, table {TABLE}"]
