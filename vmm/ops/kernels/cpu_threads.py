"""The threads on which CPU kernels run: those of the OpenMP library that PyTorch itself uses.

A pool of our own would compete with PyTorch's threads, which spin for a while after their work.
GNU's library (PyTorch for Linux) is called as GCC calls it, LLVM's and Intel's (macOS, Windows) as
Clang does: https://openmp.llvm.org/doxygen, ``__kmpc_fork_call``. Where neither is found, kernels
run on one thread.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from llvmlite import binding as llvm
from llvmlite import ir

from vmm.ops.kernels.cpu_values import I32, I64

Runtime = Literal["gnu", "llvm"]
"""How a library is asked for threads."""

_CALLS: dict[Runtime, tuple[str, ...]] = {
    "gnu": ("GOMP_parallel",),
    "llvm": ("__kmpc_global_thread_num", "__kmpc_push_num_threads", "__kmpc_fork_call"),
}
_ABOUT_THREADS = ("omp_get_thread_num", "omp_get_num_threads")
_INTEL_DLL = "libiomp5md.dll"
_IDENT_KMPC = 2
"""Marks a place in a program as one that Clang's calling convention is used from."""


@functools.cache
def runtime() -> Runtime | None:
    """Find how to ask for the threads of PyTorch, and let compiled code find the functions."""
    library = _loaded()
    for found, names in _CALLS.items():
        wanted = (*names, *_ABOUT_THREADS)
        if all(hasattr(library, name) for name in wanted):
            for name in wanted:
                function = ctypes.cast(getattr(library, name), ctypes.c_void_p)
                llvm.add_symbol(name, function.value)
            return found
    return None


def _loaded() -> ctypes.CDLL | None:
    """Return what has the functions of the OpenMP library that PyTorch has loaded."""
    if sys.platform == "win32":
        handle = ctypes.WinDLL("kernel32").GetModuleHandleW
        handle.restype = ctypes.c_void_p
        found = handle(_INTEL_DLL)
        return ctypes.CDLL(_INTEL_DLL, handle=found) if found else None
    bundled = Path(torch.__file__).with_name("lib") / "libomp.dylib"
    if sys.platform == "darwin" and bundled.is_file():
        return ctypes.CDLL(str(bundled))
    return ctypes.CDLL(None)


def write_team(kernel: ir.Function, runtime: Runtime) -> None:
    """Write the function ``team(table, threads)``, which calls a kernel in each of some threads.

    Args:
        kernel: Takes the table and returns nothing.
        runtime: Whose threads.
    """
    module, nothing = kernel.module, ir.VoidType()
    team = ir.Function(module, ir.FunctionType(nothing, [I64, I32]), "team")
    builder = ir.IRBuilder(team.append_basic_block())
    table, threads = team.args
    if runtime == "gnu":
        flags = ir.Constant(I32, 0)
        _call(builder, "GOMP_parallel", nothing, kernel, table, threads, flags)
    else:
        place = _place(module)
        number = _call(builder, "__kmpc_global_thread_num", I32, place)
        _call(builder, "__kmpc_push_num_threads", nothing, place, number, threads)
        signature = ir.FunctionType(nothing, [place.type, I32, ir.PointerType()], var_arg=True)
        fork = ir.Function(module, signature, "__kmpc_fork_call")
        builder.call(fork, [place, ir.Constant(I32, 1), _microtask(kernel), table])
    builder.ret_void()


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: Any) -> Any:
    kinds = [argument.type for argument in arguments]
    function = ir.Function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def _place(module: ir.Module) -> ir.GlobalVariable:
    """Write an ``ident_t``: four numbers and a text about the place in a program, here none."""
    text = bytearray(b";unknown;unknown;0;0;;\0")
    source = _constant(module, "source", ir.Constant(ir.ArrayType(ir.IntType(8), len(text)), text))
    numbers = [ir.Constant(I32, number) for number in (0, _IDENT_KMPC, 0, 0)]
    return _constant(module, "place", ir.Constant.literal_struct([*numbers, source]))


def _constant(module: ir.Module, name: str, value: ir.Constant) -> ir.GlobalVariable:
    variable = ir.GlobalVariable(module, value.type, name)
    variable.global_constant, variable.initializer = True, value
    return variable


def _microtask(kernel: ir.Function) -> ir.Function:
    """Write what LLVM's library calls: it also gives each thread the addresses of two numbers."""
    kinds = [ir.PointerType(), ir.PointerType(), I64]
    task = ir.Function(kernel.module, ir.FunctionType(ir.VoidType(), kinds), "task")
    builder = ir.IRBuilder(task.append_basic_block())
    builder.call(kernel, [task.args[2]])
    builder.ret_void()
    return task
