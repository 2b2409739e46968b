"""Memory that stays with the process between two layers, instead of going back to the system."""

from __future__ import annotations

import ctypes
import sys

# Names of glibc's malloc.h. Thresholds are ints in bytes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM = 2**31 - 1
_MOST = 2**25
"""The most that older versions accept."""


def keep_freed_memory(largest: int = 2**30) -> str:
    """Let the allocator keep the memory of freed tensors for the next ones.

    By default glibc gives tensors above some megabytes back to the system at once, and the next
    layer faults the same pages in again, one by one: on long clips that costs as much time as the
    computation (``benchmarks/block.py``). The price is that a process stays as large as it was at
    its largest.

    Args:
        largest: Bytes; what is larger goes back. Less makes a process smaller.

    Returns:
        A sentence that says what was done.
    """
    # Through the process's own symbols: absent where the C library is not glibc.
    process = ctypes.CDLL(None) if sys.platform == "linux" else None
    if process is None or not hasattr(process, "mallopt"):
        return "freed memory goes back to the system: the C library has no mallopt"
    kept = next((n for n in (largest, _MOST) if process.mallopt(_M_MMAP_THRESHOLD, n)), None)
    if kept is None or not process.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM):
        return "freed memory goes back to the system: mallopt refused"
    return f"freed memory of tensors up to {kept >> 20} MiB is kept for the next ones"


def return_freed_memory() -> None:
    """Give the memory of freed tensors back to the system after all, where it can be done.

    For those who know that they will not soon need as much in the same pieces.
    """
    process = ctypes.CDLL(None) if sys.platform == "linux" else None
    if process is not None and hasattr(process, "malloc_trim"):
        process.malloc_trim(0)
