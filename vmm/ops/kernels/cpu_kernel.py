"""Compiles the kernels written with ``cpu_emitter`` and runs them on several threads.

LLVM comes with the llvmlite package: no compiler is needed, and a kernel is ready in a fraction of
a second, so nothing is cached on disk. The threads are PyTorch's own (``cpu_threads``).
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import binding as llvm
from llvmlite import ir
from torch import Tensor

from vmm.ops.kernels.cpu_emitter import Emitter
from vmm.ops.kernels.cpu_threads import Runtime, runtime, write_team
from vmm.ops.kernels.cpu_values import LANES, Target

CPU_VARIABLE = "VMM_CPU"
"""May name a CPU of LLVM (``x86-64-v3``, ``haswell``, ...) to compile for instead of this one."""

_SMALL = 1 << 15
"""Work (see ``Kernel.run``) below which a second thread costs more than it gives."""

_compiling = threading.RLock()

_private = threading.local()

_forked = False
"""Whether this process is a fork, which has none of the threads that its parent's OpenMP counts on:
waiting for them it would hang, so kernels run on its only thread."""


def _begin_as_fork() -> None:
    global _forked
    _forked = True
    _compiling.release()


if hasattr(os, "register_at_fork"):
    # No process is forked while another thread compiles, or else nobody would release the lock.
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_parent=_compiling.release,
        after_in_child=_begin_as_fork,
    )


def target() -> Target:
    """Return what to compile for: this CPU, or the one that the environment variable names."""
    return _target(os.environ.get(CPU_VARIABLE, ""))


@functools.cache
def _target(name: str) -> Target:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    if name:
        return Target(name, "", "avx2" if name == "x86-64-v3" else "plain")
    features = llvm.get_host_cpu_features()
    has = {name for name, there in features.items() if there}
    powers: Any = "avx512" if {"avx512f", "avx512dq"} <= has else "plain"
    if powers == "plain" and "avx2" in has:
        powers = "avx2"
    return Target(llvm.get_host_cpu_name(), features.flatten(), powers)


def describe() -> str:
    """Say what kernels are compiled for here and on which threads they run."""
    cpu, found = target(), runtime()
    vectors = {"avx512": " with AVX-512", "avx2": " with AVX2"}.get(cpu.powers, "")
    threads = {"gnu": "threads of GNU's OpenMP", "llvm": "threads of LLVM's OpenMP"}
    where = threads[found] if found else "one thread, as neither OpenMP of GNU nor LLVM is loaded"
    return f"compiled for {cpu.cpu}{vectors}, run on {where}"


def _scratch(size: int) -> Tensor:
    """Return memory of the calling thread, which is kept: so it stays in the CPU's cache."""
    memory: Tensor | None = getattr(_private, "memory", None)
    if memory is None or memory.numel() < size:
        memory = _private.memory = torch.empty(size, dtype=torch.float32, device="cpu")
    return memory


def address_of(name: str, x: Tensor, *dtypes: torch.dtype) -> int:
    """Return where a kernel finds the numbers of a tensor of any shape.

    Kernels know nothing but addresses: a tensor of another type, as global settings can make them
    (the default type, the default device), would be read and written beyond its end.

    Raises:
        ValueError: If the tensor is of none of the types, or not in the memory of the CPU.
    """
    if x.dtype not in dtypes or x.device.type != "cpu" or x.layout != torch.strided:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"CPU kernels want {name} as {wanted} in the memory of the CPU, "
            f"got {x.dtype} ({x.layout}) on {x.device}"
        )
    return x.data_ptr()


def packed_address(name: str, x: Tensor | None) -> int:
    """Return the address of a float32 tensor of any shape without gaps; 0 for None.

    Raises:
        ValueError: If it is anything else.
    """
    if x is None:
        return 0
    address = address_of(name, x, torch.float32)
    if not x.is_contiguous():
        raise ValueError(
            f"CPU kernels want {name} without gaps, got {tuple(x.shape)}, strides {x.stride()}"
        )
    return address


def write_module(
    write: Callable[..., None],
    cpu: Target,
    names: tuple[str, ...],
    tail: bool,
    options: tuple[Any, ...],
    threads: Runtime | None,
) -> ir.Module:
    """Return LLVM code of ``kernel`` and, if it is to run on several threads, of ``team``.

    See ``Kernel``, ``Emitter`` and ``write_team``.
    """
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)]), "kernel")
    # Or else vectors on the stack straddle cache lines; llvmlite's own add() takes no strings.
    function.attributes.update(['"stackrealign"'])
    builder = ir.IRBuilder(function.append_basic_block())
    write(Emitter(builder, cpu, names, tail, threads=threads is not None), *options)
    builder.ret_void()
    if threads:
        write_team(function, threads)
    return module


def optimized(module: ir.Module, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """Return what a machine is to run, ready to be translated for it."""
    compiled = llvm.parse_assembly(str(module))
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(compiled, passes)
    return compiled


class Kernel:
    """Machine code of one kernel.

    Args:
        write: Writes the kernel; see ``compile_kernel``.
        cpu: What to compile for.
        names: Names of the integer arguments, in order.
        tail: See ``Emitter``.
        options: Passed to ``write``.
    """

    def __init__(
        self,
        write: Callable[..., None],
        cpu: Target,
        names: tuple[str, ...],
        tail: bool,
        options: tuple[Any, ...],
    ) -> None:
        threads = runtime()
        module = write_module(write, cpu, names, tail, options, threads)
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=cpu.cpu, features=cpu.features, opt=3, jit=True
        )
        compiled = optimized(module, machine)
        self._engine = llvm.create_mcjit_compiler(compiled, machine)  # owns the machine code
        self._engine.finalize_object()
        alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._alone = alone(self._engine.get_function_address("kernel"))
        self._team: Callable[[Any, int], None] | None = None
        if threads:
            team = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
            self._team = team(self._engine.get_function_address("team"))

    def run(self, arguments: dict[str, int], items: int, work: int, scratch: int = 0) -> None:
        """Run over all items, shared among as many threads as PyTorch uses.

        Args:
            arguments: In the order of the names the kernel was compiled for.
            items: Independent pieces.
            work: Rough number of elements handled, to decide whether threads pay.
            scratch: float32 numbers of private memory that one thread needs.
        """
        alone = self._team is None or _forked or work < _SMALL
        threads = 1 if alone else min(torch.get_num_threads(), items)
        memory = _scratch(max(threads, 1) * scratch)
        numbers = (items, memory.data_ptr(), 4 * scratch, *arguments.values())
        table = (ctypes.c_int64 * len(numbers))(*numbers)
        if self._team is not None and threads > 1:
            self._team(table, threads)
        else:
            self._alone(table)


def compile_kernel(write: Callable[..., None], arguments: dict[str, int], *options: Any) -> Kernel:
    """Return the kernel for these options, compiled on first use.

    Args:
        write: Called as ``write(emitter, *options)``.
        arguments: Their names, by which ``Emitter.arguments`` gives them to the kernel, and whether
            the channels fill all vectors; other values do not matter.
        options: Hashable; what the kernel is specialised for.
    """
    tail = arguments["channels"] % LANES != 0
    with _compiling:
        return _compiled(write, target(), tuple(arguments), tail, options)


@functools.cache
def _compiled(*specification: Any) -> Kernel:
    return Kernel(*specification)
