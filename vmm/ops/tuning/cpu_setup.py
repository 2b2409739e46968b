"""What commands and exported encoders set once, at their start, to be fast on CPUs."""

from __future__ import annotations

from vmm.ops.tuning.cpu_matmul import enable_fast_cpu_matmul
from vmm.ops.tuning.cpu_memory import keep_freed_memory


def tune_cpu() -> dict[str, str]:
    """Choose settings of the whole process; exact, and harmless on machines with a GPU.

    Returns:
        What is set, and a sentence that says how and why.
    """
    return {"matrix products": enable_fast_cpu_matmul(), "freed memory": keep_freed_memory()}
