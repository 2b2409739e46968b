"""``vmm doctor --deep``: what would end a long run is looked for before it begins.

Kernels against the reference, two processes that gather, and of a recipe: whether it can be built,
whether its shards can be read and decoded, whether the disk takes its checkpoints.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vmm.data.datamodules import run_folder
from vmm.data.patterns import as_list, is_remote
from vmm.data.shards import EvaluationClips
from vmm.data.transforms import ClipSettings
from vmm.ops.backends import Backend
from vmm.ops.conv import causal_conv
from vmm.ops.scan import selective_scan
from vmm.tasks.base import TrainingTask
from vmm.trainer_cli import VmmCLI, run
from vmm.types import Media

GATHER_TIMEOUT_S = 120
_LARGEST_ERROR = 1e-3
"""Of outputs and gradients in float32, as a share of the largest value."""

_GATHER = """
import torch, torch.distributed as dist
from vmm.distributed import all_gather, gather_objects, rank
dist.init_process_group({backend!r})
x = torch.full((2, 3), float(rank() + 1), device={device!r} + str(rank()) * ({device!r} != "cpu"))
x.requires_grad_()
y = all_gather(x, "exact")
(y * y).sum().backward()
assert y[:, 0].tolist() == [1, 1, 2, 2], y
assert bool((x.grad == 4 * x).all()), x.grad
assert gather_objects(rank()) == [0, 1]
dist.destroy_process_group()
"""


class Check(NamedTuple):
    """What was looked at, and what it is like."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str


class _Built(VmmCLI):
    """Builds everything and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run, and nothing written."""


def deep_checks(recipe: Sequence[str]) -> Iterator[Check]:
    """Look at this machine, and at what a recipe needs of it.

    Args:
        recipe: Options as after ``vmm fit``; without any, only the machine is looked at.

    Yields:
        One finding after the other; some take a minute.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield from kernel_checks(device)
    yield gather_check("nccl" if torch.cuda.device_count() > 1 else "gloo")
    if not recipe:
        detail = "not looked at; name it: vmm doctor --deep -c RECIPE [OPTIONS of vmm fit]"
        yield Check("recipe", "missing", detail)
        return
    try:
        built = run(["fit", *recipe], _Built)
        assert built is not None and isinstance(built.model, TrainingTask)
    except (ValueError, OSError) as error:
        yield Check("recipe", "broken", str(error))
        return
    kind = type(built.model)
    yield Check("recipe", "ok", f"{kind.__name__}, {_count(built.model) / 1e6:.1f} M parameters")
    yield from shard_checks(built.datamodule, built.model)
    yield disk_check(built.model, run_folder(built.trainer) or Path())


def kernel_checks(device: str) -> Iterator[Check]:
    """Compare every backend that runs here with the reference, outputs and gradients.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(device)

    rates = -draw(48, 16).abs()
    scan = (draw(2, 48, 70), draw(2, 48, 70), rates, draw(2, 16, 70), draw(2, 16, 70), draw(48))
    conv = (draw(2, 48, 70), draw(48, 4), draw(48))

    def scanned(name: str, u: Tensor, dt: Tensor, *others: Tensor) -> Tensor:
        A, B, C, D = others
        return selective_scan.selective_scan(u, dt, A, B, C, D, delta_softplus=True, backend=name)

    def convolved(name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return causal_conv.causal_conv1d(x, weight, bias, backend=name)

    yield from _compare("scan", selective_scan.BACKENDS, "reference", scanned, scan, (0, 2))
    yield from _compare("convolution", causal_conv.BACKENDS, "torch", convolved, conv, (0, 1))


def _compare(
    name: str,
    backends: Mapping[str, Backend],
    reference: str,
    compute: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    chosen_by: tuple[int, int],
) -> Iterator[Check]:
    def values(backend: str) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = compute(backend, *leaves)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]

    right = values(reference)
    for backend, row in backends.items():
        if backend == reference or row.module.why_not(*(inputs[i] for i in chosen_by)) is not None:
            continue
        pairs = zip(values(backend), right, strict=True)
        off = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        state: Literal["ok", "broken"] = "ok" if off < _LARGEST_ERROR else "broken"
        yield Check(f"{name} {backend}", state, f"{off:.1e} from the reference, with gradients")


def gather_check(backend: str) -> Check:
    """Let two processes of this machine gather rows, their gradients and objects.

    Args:
        backend: Of ``torch.distributed``: ``gloo`` on CPUs, ``nccl`` on two GPUs.
    """
    name = f"two processes ({backend})"
    code = _GATHER.format(backend=backend, device="cpu" if backend == "gloo" else "cuda:")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | address | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=GATHER_TIMEOUT_S)[1] for process in processes]
    except subprocess.TimeoutExpired:
        detail = f"they did not gather in {GATHER_TIMEOUT_S} s; is a firewall between them?"
        return Check(name, "broken", detail)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, words in zip(processes, said, strict=True):
        if process.returncode:
            return Check(name, "broken", (words.strip().splitlines() or ["no reason given"])[-1])
    return Check(name, "ok", "rows, their gradients and objects are gathered")


def shard_checks(data: Any, task: TrainingTask) -> Iterator[Check]:
    """Index all local shards of a datamodule; decode the first, middle and last sample of each set.

    Args:
        data: The datamodule; one that has no ``patterns`` is passed over.
        task: Its encoder says what a clip is.
    """
    encoder = task.video_encoder
    clip = ClipSettings(num_frames=encoder.num_frames, image_size=encoder.image_size)
    for pattern in data.patterns() if hasattr(data, "patterns") else ():
        if is_remote(pattern):
            yield Check(f"shards {pattern}", "missing", "remote, not looked at")
            continue
        try:
            yield _shard_check(pattern, clip)
        except (ValueError, OSError) as error:
            yield Check(f"shards {pattern}", "broken", str(error))


def _shard_check(pattern: str, clip: ClipSettings) -> Check:
    reasons: dict[str, str] = {}
    for kind in get_args(Media):
        try:
            clips = EvaluationClips(as_list(pattern), clip, kind=kind)
        except ValueError as error:
            reasons[kind] = str(error)
            continue
        looked = sorted({0, len(clips) // 2, len(clips) - 1})
        problems = [s for s in (clips[i] for i in looked) if s.problem]
        left = sum(clips.skipped.values())
        detail = f"{len(clips):,} samples ({kind}) in {len(clips.shards):,}, {left:,} not usable"
        if problems:
            return Check(f"shards {pattern}", "broken", f"{problems[0].key}: {problems[0].problem}")
        return Check(f"shards {pattern}", "ok", f"{detail}; {len(looked)} decoded")
    return Check(f"shards {pattern}", "broken", reasons["video"])


def disk_check(task: TrainingTask, folder: Path) -> Check:
    """Compare the room for a run with three checkpoints: best, newest, and one being written.

    Args:
        task: What is trained: weights, and two values of AdamW for each.
        folder: Of the run; it need not exist.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    size = 12 * _count(task)
    free = shutil.disk_usage(there).free
    detail = (
        f"{free / 1e9:.1f} GB free in {there}; a checkpoint is about {size / 1e9:.2f} GB, and "
        "there are up to three"
    )
    if not os.access(there, os.W_OK):
        return Check("disk", "broken", f"{there} cannot be written to")
    return Check("disk", "ok" if free > 3 * size else "broken", detail)


def _count(task: TrainingTask) -> int:
    """Count the values of what is trained: no frozen teacher."""
    return sum(p.numel() for n, p in task.named_parameters() if not n.startswith("teacher."))
