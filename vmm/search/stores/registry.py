"""All files and embedded databases that vectors go to, and those that they come back from.

A new one is a function ``write(table, out)`` in a file beside this one, and a line in ``STORES``;
it returns sentences that say what it wrote. Only kinds that can be read from strangers come back:
the local files of Qdrant are pickles, and FAISS trusts whatever its files say.
"""

from __future__ import annotations

from vmm.search.kinds import Kind

_HERE = "vmm.search.stores"
STORES = {
    ".parquet": Kind("a row for each moment", f"{_HERE}.parquet_file:write", "parquet"),
    ".npz": Kind("NumPy arrays", f"{_HERE}.numpy_file:write"),
    ".faiss": Kind("exact index, moments in .jsonl", f"{_HERE}.faiss_file:write", "faiss"),
    ".lancedb": Kind("database, table moments", f"{_HERE}.lancedb_folder:write", "lancedb"),
    ".qdrant": Kind("local mode, collection moments", f"{_HERE}.qdrant_folder:write", "qdrant"),
}
READABLE = {
    ".parquet": Kind("a row for each moment", f"{_HERE}.parquet_file:read", "parquet"),
    ".npz": Kind("NumPy arrays", f"{_HERE}.numpy_file:read"),
}
