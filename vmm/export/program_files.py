"""The towers as ``.pt2`` files of ``torch.export``, and compiled by AOTInductor.

They hold vmm's operators: before loading, ``import vmm.ops.scan.bidirectional,
vmm.ops.conv.causal_conv``.
The scan's backend is the one of the machine that wrote them. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vmm.export.folder import EncoderParts
from vmm.export.programs import example_inputs, expected, largest_difference, trace

_ADVICE = "try another version of torch"


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
        inputs: Its value: (B, T, C, H, W), or twice (B, S).
        path: The file to write.

    Returns:
        The largest difference to the model.

    Raises:
        ValueError: As ``largest_difference``.
    """
    torch.export.save(trace(parts, name, inputs), path)
    loaded = torch.export.load(path).module()
    want = expected(parts, name, inputs)
    return largest_difference(path, loaded(*inputs), want, _ADVICE)


def compile_tower(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Compile, write and check one package; arguments and result as for ``write_tower``.

    So ``inputs`` are (B, T, C, H, W), or twice (B, S).
    """
    program = trace(parts, name, inputs)
    # Says of a machine without GPU that it has none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    run = torch._inductor.aoti_load_package(str(path))
    want = expected(parts, name, inputs)
    return largest_difference(path, run(*inputs), want, _ADVICE)
