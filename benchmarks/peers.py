"""Other implementations that the benchmarks compare vmm with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable

from torch import Tensor

Scan = Callable[..., Tensor]


def scans() -> tuple[dict[str, Scan], list[str]]:
    """Return scans of other packages that run here, and notes on those that do not.

    Each takes u, delta, A, B, C, D, z, delta_bias as ``selective_scan`` of
    ``vmm.ops.scan.selective_scan``.
    """
    if importlib.util.find_spec("transformers") is None:
        return {}, ["transformers is not installed: its scan was not measured"]
    from transformers.models.mamba import modeling_mamba

    theirs = getattr(modeling_mamba, "mamba_selective_scan", None)
    if theirs is None:
        version = importlib.metadata.version("transformers")
        return {}, [f"transformers {version} has no separate scan: it was not measured"]

    def slow_path(*x: Tensor, pscan: bool = False) -> Tensor:
        out: Tensor | tuple[Tensor, ...] = theirs(*x, delta_softplus=True, use_mambapy=pscan)
        return out if isinstance(out, Tensor) else out[0]

    found: dict[str, Scan] = {"transformers": slow_path}
    if importlib.util.find_spec("mambapy") is None:
        return found, ["mambapy is not installed: its parallel scan was not measured"]
    found["mambapy"] = lambda *x: slow_path(*x, pscan=True)
    return found, []
