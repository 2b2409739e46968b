"""The towers as ``.pt2`` files of ``torch.export``, and compiled by AOTInductor.

They hold vmm's operators: ``import vmm.ops.bidirectional, vmm.ops.causal_conv`` before loading.
The scan's backend is the one of the machine that wrote them. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vmm.export.folder import EncoderParts
from vmm.export.programs import example_inputs, expected, trace

TOLERANCE = 1e-5
"""Largest allowed difference of an entry of a unit vector."""


def write_programs(parts: EncoderParts, folder: Path, frames: Sequence[int]) -> dict[str, float]:
    """Write ``video_<n>_frames.pt2`` for every number of frames, and ``text.pt2``.

    Where a C++ compiler is installed, also ``*.compiled.pt2``, AOTInductor packages for this
    kind of CPU, which ``torch._inductor.aoti_load_package`` loads.

    Args:
        parts: The model.
        folder: Where to.
        frames: Numbers of frames.

    Returns:
        Largest difference to the model, by file name.

    Raises:
        ValueError: If a file computes something else than the model.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    differences = {}
    for name, inputs in example_inputs(parts, frames).items():
        path = folder / f"{name}.pt2"
        differences[path.name] = write_tower(parts, name, inputs, path)
        if compiler:
            path = folder / f"{name}.compiled.pt2"
            differences[path.name] = compile_tower(parts, name, inputs, path)
    return differences


def write_tower(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Write and check one file.

    Args:
        parts: The model.
        name: A key of ``vmm.export.programs.example_inputs``.
        inputs: Its value.
        path: The file to write.

    Returns:
        The largest difference to the model.

    Raises:
        ValueError: If it is above ``TOLERANCE``.
    """
    torch.export.save(trace(parts, name, inputs), path)
    loaded = torch.export.load(path).module()
    return _difference(path, loaded(*inputs), expected(parts, name, inputs))


def compile_tower(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Compile, write and check one package; arguments and result as for ``write_tower``."""
    program = trace(parts, name, inputs)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    run = torch._inductor.aoti_load_package(str(path))
    return _difference(path, run(*inputs), expected(parts, name, inputs))


def _difference(path: Path, got: Tensor, want: Tensor) -> float:
    difference = (got - want).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{path.name} differs from the model by {difference:.1e}, more than {TOLERANCE}: "
            "it is of no use; try another version of torch"
        )
    return difference
