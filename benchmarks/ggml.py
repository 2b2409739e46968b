"""The scan of ggml, the C library under llama.cpp, out of the package pywhispercpp.

That package is for speech, but brings ggml as libraries of their own. The scan is forward only and
knows neither gate nor skip. https://github.com/ggml-org/ggml, ``ggml_ssm_scan``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Callable
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p

import torch
from torch import Tensor

from vmm.ops.scan.selective_scan import selective_scan

NAME = "ggml (llama.cpp)"
PACKAGE = "pywhispercpp"
_TYPES = {torch.float32: 0, torch.int32: 26}
"""ggml's numbers of them."""
_SPARE = 1 << 24
"""Bytes for what ggml keeps beside the numbers."""
_TOLERANCE = 1e-5


class _Memory(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = (("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool))


_SIGNATURES = {
    "ggml_init": (c_void_p, [_Memory]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor": (c_void_p, [c_void_p, c_int, c_int, c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    # Later versions have one argument more, the number of states to keep.
    "ggml_ssm_scan": (c_void_p, [c_void_p] * 8 + [c_int64]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_graph_compute_with_ctx": (c_int, [c_void_p, c_void_p, c_int]),
}


@functools.cache
def _functions() -> dict[str, Callable[..., int]]:
    """Load the libraries.

    Raises:
        ModuleNotFoundError: If the package is not installed.
        ValueError: If it has no such library.
    """
    files = importlib.metadata.files(PACKAGE) or []
    found: dict[str, Callable[..., int]] = {}
    for part in ("base", "cpu"):
        places = [file.locate() for file in files if f".libs/libggml-{part}-" in str(file)]
        if not places:
            raise ValueError(f"{PACKAGE} has no libggml-{part} here")
        library = ctypes.CDLL(str(places[0]))
        for name, (result, arguments) in _SIGNATURES.items():
            if name not in found and hasattr(library, name):
                found[name] = getattr(library, name)
                found[name].restype, found[name].argtypes = result, arguments  # type: ignore[attr-defined]
    return found


class _Scan:
    """A scan that is ready to run: its inputs lie in memory of ggml."""

    def __init__(self, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
        self._ggml = _functions()
        batch, width, length = u.shape
        states = a.shape[1]
        numbers = 3 * u.numel() + b.numel() + c.numel() + 3 * batch * width * states
        self._context = self._ggml["ggml_init"](_Memory(4 * numbers + _SPARE, None, False))
        over_time = (x.transpose(1, 2) for x in (u, delta, b, c))
        seen, steps, written, read = over_time
        self._result = self._ggml["ggml_ssm_scan"](
            self._context,
            self._put(torch.zeros(batch, width, 1, states)),
            self._put(seen.unsqueeze(-1)),
            self._put(steps),
            self._put(a),
            self._put(written.unsqueeze(-2)),
            self._put(read.unsqueeze(-2)),
            self._put(torch.arange(batch, dtype=torch.int32)),
            1,
        )
        self._graph = self._ggml["ggml_new_graph"](self._context)
        self._ggml["ggml_build_forward_expand"](self._graph, self._result)
        self._shape = batch, length, width

    def __del__(self) -> None:
        self._ggml["ggml_free"](self._context)

    def _put(self, x: Tensor) -> int:
        sizes = (c_int64 * x.ndim)(*reversed(x.shape))
        tensor = self._ggml["ggml_new_tensor"](self._context, _TYPES[x.dtype], x.ndim, sizes)
        x = x.contiguous()
        ctypes.memmove(self._ggml["ggml_get_data"](tensor), x.data_ptr(), x.nbytes)
        return tensor

    def __call__(self) -> list[Tensor]:
        """Return the output, (B, E, L) float32, in memory that goes with this object."""
        threads = torch.get_num_threads()
        status = self._ggml["ggml_graph_compute_with_ctx"](self._context, self._graph, threads)
        assert status == 0, status
        batch, length, width = self._shape
        memory = (ctypes.c_float * (batch * length * width)).from_address(
            self._ggml["ggml_get_data"](self._result)
        )
        return [torch.frombuffer(memory, dtype=torch.float32).view(self._shape).transpose(1, 2)]


def prepare(inputs: list[Tensor]) -> _Scan:
    """Return a call of ggml's scan.

    Args:
        inputs: u, delta, A, B, C, D, z, delta_bias as of ``selective_scan``; D and z are left out.
    """
    u, delta, a, b, c, _, _, bias = inputs
    return _Scan(u, delta + bias.unsqueeze(-1), a, b, c)


@functools.cache
def why_not() -> str | None:
    """Say why it cannot be measured here; None if it can."""
    try:
        _functions()
    except importlib.metadata.PackageNotFoundError:
        return f"{PACKAGE} is not installed: ggml's scan was not measured"
    except (ValueError, OSError) as error:
        return f"ggml's scan was not measured: {error}"
    u = torch.randn(2, 8, 5)
    a, b = -torch.rand(8, 16), torch.randn(2, 16, 5)
    inputs = [u, torch.randn(2, 8, 5), a, b, b.flip(-1), torch.ones(8), u, torch.zeros(8)]
    expected = selective_scan(*inputs[:5], delta_softplus=True)
    scan = prepare(inputs)
    if torch.allclose(scan()[0], expected, atol=_TOLERANCE):
        return None
    version = importlib.metadata.version(PACKAGE)
    return f"ggml's scan was not measured: that of {PACKAGE} {version} gives other numbers"
