"""Compiles Triton kernels for a GPU that is not there, in a process without the interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PREAMBLE = """
import torch
from benchmarks.gpu_compiler import Compiles, compiled, pretend, resources

pretend({target!r})
"""


def compiled_kernels(code, target="sm_90"):
    """Run code that launches kernels wrapped into ``Compiles``; return how many it compiled."""
    if "nvidia" not in pytest.importorskip("triton").backends.backends:
        pytest.skip("this Triton has no compiler for NVIDIA GPUs")
    plain = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", _PREAMBLE.format(target=target) + code + "\nprint(len(compiled))"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env=plain,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return int(result.stdout)
