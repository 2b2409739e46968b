"""Settings of the process, or of a thread, that decide what a tensor without further words is."""

from contextlib import contextmanager

import torch


@contextmanager
def _default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _deterministic():
    """Unlike the others this also fills memory that nothing was written to yet with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STATES = {
    "default bfloat16": lambda: _default_dtype(torch.bfloat16),
    "default float16": lambda: _default_dtype(torch.float16),
    "default float64": lambda: _default_dtype(torch.float64),
    "default device meta": lambda: torch.device("meta"),
    "deterministic": _deterministic,
    "three threads": lambda: _threads(3),
    "inference mode": torch.inference_mode,
}
"""By name, a function that returns a context in which the setting holds. None of them changes what
a function of given tensors returns."""
