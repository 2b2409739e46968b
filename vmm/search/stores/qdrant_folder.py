"""Vectors as a folder of Qdrant's local mode, with the collection ``moments``. Extra ``qdrant``.

The local mode is for tens of thousands of moments; more belong on a server.
"""

from __future__ import annotations

from pathlib import Path

from qdrant_client import QdrantClient, models

from vmm.search.stores.table import Table, with_names
from vmm.text_output import number_of
from vmm.whole import whole_folder

COLLECTION = "moments"
_BATCH = 512


def write(table: Table, out: Path) -> list[str]:
    """Write a folder; the payload of a point are its columns, its id is their ``id``."""
    size = models.VectorParams(size=table.settings.embedding_dim, distance=models.Distance.COSINE)
    with whole_folder(out) as folder:
        client = QdrantClient(path=str(folder))
        try:
            client.create_collection(COLLECTION, vectors_config=size)
            for chunk, columns in with_names(table):
                payloads = [
                    dict(zip(columns, values, strict=True))
                    for values in zip(*columns.values(), strict=True)
                ]
                client.upload_collection(
                    COLLECTION, chunk.vectors, payloads, columns["id"], batch_size=_BATCH
                )
        finally:
            client.close()
    return [f"wrote {number_of(table.rows, 'vector')} to {out}, collection {COLLECTION}"]
