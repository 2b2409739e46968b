"""Compiles Triton kernels for a GPU that is not there, in a process without the interpreter."""

import os
import subprocess
import sys

import pytest

_PREAMBLE = """
import torch, triton
from triton.backends.compiler import GPUTarget

class Driver:  # what is asked of a driver when nothing is launched
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

triton.runtime.driver.set_active(Driver())

compiled = []
class Compiles:
    def __init__(self, kernel): self.kernel = kernel
    def __getitem__(self, grid):
        return lambda *x, **k: compiled.append(self.kernel.warmup(*x, grid=grid, **k))
"""


def compiled_kernels(code):
    """Run code that launches kernels wrapped into ``Compiles``; return how many it compiled."""
    if "nvidia" not in pytest.importorskip("triton").backends.backends:
        pytest.skip("this Triton has no compiler for NVIDIA GPUs")
    plain = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + code + "\nprint(len(compiled))"],
        capture_output=True,
        text=True,
        env=plain,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return int(result.stdout)
