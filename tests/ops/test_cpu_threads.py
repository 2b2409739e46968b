"""Kernels share their items among the threads of each kind of OpenMP library."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest
from llvmlite import binding as llvm
from llvmlite import ir

from tests.ops.arm import machine_of
from vmm.ops.kernels.cpu_threads import runtime, write_team
from vmm.ops.kernels.cpu_values import I64

SHARED = """
import torch
from vmm.ops.kernels import cpu_kernel, cpu_threads

def write(code):
    def one_item(item):
        thread = code.scratch - code.arguments["memory"]  # each has 64 bytes of its own
        code.store(code.number(1.0), code.arguments["by_thread"] + thread)
        code.add_to(code.arguments["by_item"] + item * 64, code.number(1.0))

    code.each_item(one_item)

cpu_threads._CALLS = {"RUNTIME": cpu_threads._CALLS["RUNTIME"]}
assert cpu_threads.runtime() == "RUNTIME"
torch.set_num_threads(8)
for work, allowed, threads in ((1 << 20, 3, 3), (1 << 20, 2, 2), (1 << 20, 8, 5), (1, 8, 1)):
    torch.set_num_threads(allowed)
    by_thread, by_item = torch.zeros(8, 16), torch.zeros(5, 16)
    memory = cpu_kernel._scratch(8 * 16)
    tensors = {"memory": memory, "by_thread": by_thread, "by_item": by_item}
    arguments = {name: x.data_ptr() for name, x in tensors.items()} | {"channels": 16}
    for _ in range(3):
        cpu_kernel.compile_kernel(write, arguments).run(arguments, 5, work, scratch=16)
    assert by_item.unique().tolist() == [3.0], by_item
    assert by_thread[:, 0].tolist() == [1.0] * threads + [0.0] * (8 - threads), by_thread
"""


def run_shared(kind, **environment):
    code = SHARED.replace("RUNTIME", kind)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | environment)


def intel_library():
    """PyTorch takes Intel's library, which is LLVM's, for its own where it is loaded before."""
    try:
        files = importlib.metadata.files("intel-openmp") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(f.locate().resolve()) for f in files if f.name == "libiomp5.so"), None)


@pytest.mark.skipif(runtime() != "gnu", reason="PyTorch does not use GNU OpenMP here")
def test_threads_of_gnu_openmp():
    run_shared("gnu")


@pytest.mark.skipif(intel_library() is None, reason="pip install intel-openmp (x86-64 Linux)")
def test_threads_of_llvm_openmp():
    run_shared("llvm", LD_PRELOAD=intel_library())


@pytest.mark.parametrize(
    ("triple", "passed"),
    [
        ("arm64-apple-macosx", r"str\s+x0, \[sp\]"),  # what follows "..." is always in memory
        ("aarch64-linux-gnu", r"mov\s+x3, x0"),
    ],
)
def test_each_system_gets_the_arguments_where_it_looks_for_them(triple, passed):
    module = ir.Module()
    kernel = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64]), "kernel")
    write_team(kernel, "llvm")
    machine = machine_of("generic", triple)
    module.triple = machine.triple
    assembly = machine.emit_assembly(llvm.parse_assembly(str(module)))
    body = re.search(r"\n_?team:(.*?)\n_?task:", assembly, re.DOTALL).group(1)
    before, _ = body.split("__kmpc_fork_call")
    saved = re.search(r"mov\s+(x\d+), x0", before).group(1)  # the table, over the other calls
    assert re.search(passed.replace("x0", saved), before), assembly
