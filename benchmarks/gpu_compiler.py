"""Compiles Triton kernels for GPUs that are not there, and reads what their code takes of one.

For a process of its own, in which Triton does not interpret: nothing is launched, and the driver
stays replaced. Compilers, assembler and disassembler come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
"""Name to backend, architecture and threads of a warp."""

_SPILL = re.compile(r"\b(LDL|STL)\b|\bscratch_(load|store)_")
_SPECIAL = re.compile(r"\bMUFU\b|\bv_(exp|log|rcp|rsq|sqrt|sin|cos)_f32")
_ANY = re.compile(r";\s*(/\*|$)|^\s+(v|s|ds|global|buffer|flat|scratch)_\w+", re.ASCII)
_LABEL = re.compile(r"\s*(\.L\w+):")
_JUMP = re.compile(r"\b(?:BRA|s_c?branch\w*)\b.*?(\.L\w+)")


class _Driver:
    """What Triton asks a driver when nothing is launched."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_current_target(self) -> GPUTarget:
        return TARGETS[self.name]

    def get_current_device(self) -> int:
        return list(TARGETS).index(self.name)  # kernels are kept by it

    def get_current_stream(self, device: int) -> int:
        return 0


class Code(NamedTuple):
    """A piece of code: its instructions, and those of the unit for exp, log and 1 / x."""

    instructions: int
    special: int


class Resources(NamedTuple):
    """What a program takes.

    Args:
        registers: Of a thread; on AMD its vector registers, accumulators included.
        spilled: Bytes of a thread that did not fit into registers.
        spills_in_loops: Instructions in loops that store or load such bytes.
        shared: Bytes of a program.
        threads: Of a program.
        whole: All code.
        loops: Those without loops in them, in the order of the code.
    """

    registers: int
    spilled: int
    spills_in_loops: int
    shared: int
    threads: int
    whole: Code
    loops: tuple[Code, ...]


class Compiled(NamedTuple):
    """A compiled kernel and the programs that it was to be launched with."""

    programs: tuple[int, ...]
    kernel: Any


compiled: list[Compiled] = []
"""What ``Compiles`` compiled."""


class Compiles:
    """In place of a kernel: compiles what is launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            found = self.kernel.warmup(*args, grid=grid, **options)
            compiled.append(Compiled(grid, found))

        return launch


def pretend(name: str) -> None:
    """Let Triton and the kernels' launches take the current GPU for one of ``TARGETS``.

    Raises:
        ValueError: If this Triton cannot compile for it.
    """
    backend = {"cuda": "nvidia", "hip": "amd"}[TARGETS[name].backend]
    if backend not in triton.backends.backends:
        raise ValueError(f"Triton {triton.__version__} has no compiler for {name} ({backend})")
    from vmm.ops.scan import triton as scan_triton

    scan_triton.lanes = lambda device: TARGETS[name].warp_size  # type: ignore[assignment]
    triton.runtime.driver.set_active(_Driver(name))


def resources(kernel: Any) -> Resources:
    """Read what a compiled kernel takes.

    Raises:
        ValueError: If its code cannot be read.
    """
    threads = kernel.metadata.num_warps * kernel.metadata.target.warp_size
    if "cubin" in kernel.asm:
        registers, spilled, code = _of_cubin(kernel.asm["cubin"])
    else:
        code = kernel.asm["amdgcn"]
        registers = _field(r"\.vgpr_count:\s*(\d+)", code)
        spilled = _field(r"\.private_segment_fixed_size:\s*(\d+)", code)
    lines = code.splitlines()
    loops, spills = loops_of(lines)
    whole = _counted(lines, range(len(lines)))
    return Resources(registers, spilled, spills, kernel.metadata.shared, threads, whole, loops)


def loops_of(lines: list[str]) -> tuple[tuple[Code, ...], int]:
    """Return the innermost loops of a program, and the instructions in loops that spill."""
    loops = _loops(lines)
    spills = sum(bool(_SPILL.search(lines[i])) for i in {i for loop in loops for i in loop})
    inner = [
        _counted(lines, loop)
        for loop in loops
        if not any(x != loop and x[0] in loop and x[-1] in loop for x in loops)
    ]
    return tuple(loop for loop in inner if loop.instructions > 2), spills  # the end is a trap


def _of_cubin(cubin: bytes) -> tuple[int, int, str]:
    """Return registers, bytes of the stack and the disassembled code."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage, code = (
            subprocess.run(
                [tools / tool, option, path], capture_output=True, text=True, check=True
            ).stdout
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    return _field(r"REG:(\d+)", usage), _field(r"STACK:(\d+)", usage), code


def _field(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern} is not in what the compiler says: {text[:300]!r}")
    return int(found[1])


def _loops(lines: list[str]) -> list[range]:
    """Return the lines of every loop, which ends with a jump back."""
    begins: dict[str, int] = {}
    loops = []
    for i, line in enumerate(lines):
        if label := _LABEL.match(line):
            begins[label[1]] = i
        elif (jump := _JUMP.search(line)) and jump[1] in begins:
            loops.append(range(begins[jump[1]], i + 1))
    return loops


def _counted(lines: list[str], piece: range) -> Code:
    found = (sum(bool(wanted.search(lines[i])) for i in piece) for wanted in (_ANY, _SPECIAL))
    return Code(*found)
