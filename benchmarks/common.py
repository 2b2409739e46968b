"""What the benchmarks share: fair timing, peak memory, errors, and what they ran on.

Only ratios count, so all variants of a case run in turns in one process, on one thread, and the
fastest of several runs is kept. On a CPU the clock is the process's own CPU time: other programs
matter little. On a GPU it is the time between two events.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

PACKAGES = ("torch", "triton", "llvmlite", "numpy", "transformers", "mambapy", "mamba_ssm")

TURN_S = 0.02


def device() -> torch.device:
    """The GPU if there is one. ``CUDA_VISIBLE_DEVICES= `` in front of a command hides it."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place() -> str:
    """What titles say about it."""
    return "one CPU thread" if device().type == "cpu" else "a GPU"


def hardware() -> dict[str, Any]:
    """Say what it runs on: names of CPU and GPU, instruction set, threads."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        name = found.group(1) if found else name
    from vmm.ops.kernels.cpu_kernel import target

    found_here: dict[str, Any] = {
        "cpu": name,
        "llvm_cpu": target().cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found_here["gpu"] = torch.cuda.get_device_name()
    return found_here


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of what matters; packages that are missing are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        if importlib.util.find_spec(package) is not None:
            found[package] = importlib.metadata.version(package)
    return found


class Timing(NamedTuple):
    """Seconds of one call."""

    fastest: float
    median: float
    runs: int


class Race:
    """Times variants side by side over growing sizes; who would take too long drops out.

    A turn is several runs of a quick variant, so that what the one before it did to the caches and
    to the heap is not counted.

    Args:
        rounds: Turns of each variant.
        limit_s: A variant is not run where one run is expected to take longer, and gets fewer
            turns where all together would.
    """

    def __init__(self, rounds: int, limit_s: float) -> None:
        self.rounds = rounds
        self.limit_s = limit_s
        self._past: dict[str, list[tuple[float, float]]] = {}

    def run(self, size: float, variants: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
        """Time all variants that fit into the limit.

        Args:
            size: What the time grows with, e.g. tokens; used to foresee the next time.
            variants: Name to a call without arguments.
        """
        seconds: dict[str, list[float]] = {}
        for name, call in variants.items():
            if self._expected(name, size) <= self.limit_s:
                first = elapsed(call)  # warms up, compiles; counts only where it is slow
                if name not in self._past and first > self.limit_s / 2:
                    first = elapsed(call)  # not slow, perhaps: Triton takes seconds to compile
                seconds[name] = [first] if first > self.limit_s / 2 else []
        for _ in range(self.rounds):
            for name, times in seconds.items():
                if sum(times) < self.limit_s:
                    times += _turn(variants[name])
        for name, times in seconds.items():
            self._past.setdefault(name, []).append((size, min(times)))
        return {
            name: Timing(min(times), statistics.median(times), len(times))
            for name, times in seconds.items()
        }

    def _expected(self, name: str, size: float) -> float:
        """Seconds to be expected: the growth goes on; until it is known it is the square."""
        past = self._past.get(name, [])
        if not past:
            return 0.0
        last_size, last = past[-1]
        power = 2.0
        if len(past) > 1:
            power = math.log(last / past[-2][1]) / math.log(last_size / past[-2][0])
        return last * (size / last_size) ** max(power, 1.0)


def _turn(call: Callable[[], object]) -> list[float]:
    """Return the seconds of as many runs as fill a turn, at least one."""
    times = [elapsed(call)]
    while sum(times) < TURN_S:
        times.append(elapsed(call))
    return times


def elapsed(call: Callable[[], object]) -> float:
    """Return the seconds of one call: CPU time of the process, or time on the GPU if there is."""
    if not torch.cuda.is_available():
        start = time.process_time()
        call()
        return time.process_time() - start
    begin: Any = torch.cuda.Event(enable_timing=True)
    end: Any = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / 1e3


def extra_memory(call: Callable[[], Sequence[Tensor]]) -> int | None:
    """Return the bytes that a call needs at its peak, beyond what is there and what it returns.

    On a CPU this is resident memory, measured in a forked child: free heap is given back to the
    system first, so that memory used before does not hide what the call needs.

    Args:
        call: Returns all tensors that it leaves behind, e.g. output and gradients. It is run
            once before it is measured.

    Returns:
        Bytes, or None where it could not be measured (no Linux, or it ran out of memory).

    Raises:
        ValueError: If PyTorch has several threads, which a fork would leave waiting forever.
    """
    if torch.cuda.is_available():
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        left = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before - num_bytes(left)
    if platform.system() != "Linux":
        return None
    if torch.get_num_threads() > 1:
        raise ValueError(
            f"PyTorch has {torch.get_num_threads()} threads; call torch.set_num_threads(1) at the "
            "start to measure memory"
        )
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(_resident_peak(call)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return int(answer) if answer else None


def _resident_peak(call: Callable[[], Sequence[Tensor]]) -> int:
    """Measure ``extra_memory`` in this process."""
    call()  # loads code, which is memory too
    _forget_peak()
    before = _status("VmRSS")
    left = call()
    return _status("VmHWM") - before - num_bytes(left)


def _forget_peak() -> None:
    """Give free heap back to the system and let the peak begin at what is left."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(call: Callable[[], object]) -> int | None:
    """Return the most bytes that the whole process, or the GPU, holds during a call.

    Returns:
        Bytes, or None where it could not be measured (no Linux).
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    if platform.system() != "Linux":
        call()
        return None
    _forget_peak()
    call()
    return _status("VmHWM")


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found is not None
    return 1024 * int(found.group(1))


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all tensors together."""
    return sum(x.numel() * x.element_size() for x in tensors)


def error(actual: Tensor, exact: Tensor) -> float:
    """Largest difference from a float64 result, as a share of that result's largest value."""
    return float(((actual.double() - exact).abs().max() / exact.abs().max()).item())
