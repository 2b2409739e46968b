"""``vmm doctor``: what is installed, which scan backend is used, what is missing and its price."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.util import find_spec, module_from_spec
from itertools import chain
from typing import Literal, NoReturn

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vmm.command_line import CommandParser
from vmm.text_output import say

State = Literal["ok", "missing", "broken"]

_PACKAGES = {
    "torch": "everything",
    "torchvision": 'open_clip: pip install "vmm-video[train]"',
    "transformers": "text encoders",
    "llvmlite": "the compiled CPU scan; the pure-PyTorch one is about seven times slower",
    "av": "video decoding",
    "lightning": 'training: pip install "vmm-video[train]"',
    "jsonargparse": 'training: pip install "vmm-video[train]"',
    "open_clip_torch": 'towers of CLIP and SigLIP: pip install "vmm-video[open-clip]"',
    "triton": "scan and convolution on GPUs: pip install triton",
    "mamba_ssm": 'another scan on GPUs: pip install "vmm-video[cuda]"',
    "causal_conv1d": 'another convolution on GPUs: pip install "vmm-video[cuda]"',
    "onnxscript": 'the export format onnx: pip install "vmm-video[onnx]"',
    "onnxruntime": 'the check of ONNX exports: pip install "vmm-video[onnx]"',
    "sentence_transformers": 'that export format: pip install "vmm-video[sentence-transformers]"',
    "gradio": 'the page of `vmm app`: pip install "vmm-video[app]"',
    "opentimelineio": 'hits as .otio: pip install "vmm-video[otio]"',
    "pyarrow": 'vectors and annotations as Parquet: pip install "vmm-video[parquet]"',
    "scenedetect-headless": '`vmm encode --shots`: pip install "vmm-video[shots]"',
    "faiss-cpu": 'approximate search, vectors as .faiss: pip install "vmm-video[faiss]"',
    "lancedb": 'vectors as .lancedb: pip install "vmm-video[lancedb]"',
    "qdrant-client": 'vectors as .qdrant: pip install "vmm-video[qdrant]"',
    "fastapi": '`vmm serve`: pip install "vmm-video[serve]"',
    "peft": 'LoRA: pip install "vmm-video[lora]"',
    "deepspeed": 'the DeepSpeed overlay: pip install "vmm-video[deepspeed]"',
}
_OPTIONAL = {
    "triton",
    "mamba_ssm",
    "causal_conv1d",
    "deepspeed",
    "onnxscript",
    "onnxruntime",
    "sentence_transformers",
    "gradio",
    "opentimelineio",
    "pyarrow",
    "scenedetect-headless",
    "faiss-cpu",
    "fastapi",
    "peft",
    "lancedb",
    "qdrant-client",
}


_TRAINING = {"lightning", "jsonargparse", "torchvision", "open_clip_torch"}
"""Missing where vmm was installed to use models, not to train them."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    detail: str
    needed: bool = True


def _python() -> Finding:
    there = platform.python_version()
    wanted = _wanted_python()
    if not SpecifierSet(wanted).contains(there, prereleases=True):
        return Finding("python", "broken", f"{there}, vmm needs {wanted}")
    return Finding("python", "ok", f"{there} on {platform.machine()}")


def _trains() -> bool:
    """Tell whether anything was installed that only training needs."""
    return any(find_spec(name) for name in ("lightning", "jsonargparse"))


def _package(name: str, purpose: str) -> Finding:
    needed = name not in _OPTIONAL and (name not in _TRAINING or _trains())
    try:
        there = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", f"needed for {purpose}", needed)
    wanted = wanted_versions().get(canonicalize_name(name), SpecifierSet())
    if not wanted.contains(there, prereleases=True):
        advice = f'{there}, vmm needs {wanted}: pip install "{name}{wanted}"'
        return Finding(name, "broken", advice, needed)
    return Finding(name, "ok", there, needed)


@cache
def _wanted_python() -> str:
    """Which Pythons the installed package says it works with; empty in a mere checkout."""
    try:
        return importlib.metadata.metadata("vmm-video")["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def wanted_versions() -> dict[str, SpecifierSet]:
    """Which versions of other packages vmm works with, as far as the installed package says."""
    try:
        lines = importlib.metadata.requires("vmm-video") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    required = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one.specifier for one in required}


def decode_a_clip() -> str:
    """Decode a tiny clip from memory, as those of shards are, and say what with.

    Raises:
        ValueError: If the frames are not those of the clip.
    """
    import av
    from PIL import Image

    from vmm.data.decode import decode_video

    pictures = [Image.new("RGB", (16, 16), (100 * number, 0, 0)) for number in range(3)]
    clip = io.BytesIO()
    pictures[0].save(clip, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    frames = decode_video(clip.getvalue(), lambda times: range(len(times)))
    if frames[:, 8, 8, 0].tolist() != [0, 100, 200]:
        raise ValueError(f"a clip of three frames was decoded to {frames[:, 8, 8].tolist()}")
    usual = ("h264", "hevc", "vp9", "av1")
    missing = [codec for codec in usual if codec not in av.codecs_available]
    lacks = f", cannot decode {', '.join(missing)}" if missing else ""
    return f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}: works{lacks}"


def torchvision_pair(torch_version: str, torchvision_version: str) -> str:
    """Say what to do when torchvision does not work with the installed torch.

    The usual cause is a CPU build of one (version ``2.13.0+cpu``) beside a CUDA build of the
    other: their compiled operators do not fit, and open_clip fails with them.
    """
    builds = {v.partition("+")[2] or "default" for v in (torch_version, torchvision_version)}
    if len(builds) > 1:
        return (
            f"torch {torch_version} and torchvision {torchvision_version} are of different builds; "
            "install both from the same index (pip install --force-reinstall torch torchvision), "
            "without it open_clip fails, and so do CLIP teachers and the per-frame ViT"
        )
    return (
        f"torch {torch_version} and torchvision {torchvision_version} do not fit; "
        "install the pair that was released together (pip install -U torch torchvision)"
    )


def _operators() -> list[Finding]:
    import torch

    from vmm.ops.conv import causal_conv
    from vmm.ops.scan import selective_scan
    from vmm.ops.tuning.cpu_setup import tune_cpu

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, weight = torch.zeros(1, 32, 8, device=device), torch.zeros(32, 4, device=device)
    found = []
    for operator, module in (("selective scan", selective_scan), ("convolution", causal_conv)):
        chosen, reasons = module.choose_backend(x, weight)
        found.append(Finding(operator, "ok", f"{chosen} on {device}"))
        found += [
            Finding(f"{operator} {name}", "missing", why, needed=False)
            for name, why in reasons.items()
        ]
    said = tune_cpu()
    if find_spec("llvmlite"):
        from vmm.ops.kernels.cpu_kernel import describe

        said["CPU kernels"] = describe()
    return found + [Finding(name, "ok", sentence) for name, sentence in said.items()]


def _torchvision() -> list[Finding]:
    """Load torchvision's compiled operators and what registers them: there builds do not fit.

    All of torchvision would take seconds, as it loads torch's compiler.
    """
    spec = find_spec("torchvision")
    assert spec is not None
    sys.modules["torchvision"] = module_from_spec(spec)  # and its __init__ is not run
    importlib.import_module("torchvision._meta_registrations")
    return [Finding(_PAIR, "ok", "fit torch")]


def _loaded(module: str) -> list[Finding]:
    importlib.import_module(module)
    return [Finding(f"import {module}", "ok", "works")]


_PAIR = "torchvision operators"
_CHECKS: dict[str, Callable[[], list[Finding]]] = {
    _PAIR: _torchvision,
    "decoding": lambda: [Finding("decoding", "ok", decode_a_clip())],
    "operators": _operators,
    "import torchvision": lambda: _loaded("torchvision"),
    "import open_clip": lambda: _loaded("open_clip"),
}


def _requirements(package: str) -> Finding:
    """Look whether an installed package has what it asks for; to import it may take seconds."""
    wanted = map(Requirement, importlib.metadata.requires(package) or [])
    unmet = [str(one).partition(";")[0] for one in wanted if not _is_met(one)]
    advice = f"{', '.join(unmet)} not there: pip install -U {package}"
    name = f"{package} needs"
    return Finding(name, "broken", advice) if unmet else Finding(name, "ok", "all of it is there")


def _is_met(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return True
    try:
        there = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return wanted.specifier.contains(there, prereleases=True)


def run_checks(names: Sequence[str]) -> NoReturn:
    """Do some of the checks and end this process, which has no other use.

    Prints the findings of each check as a line of JSON; an error ends it as any error does.
    """
    with open(os.dup(1), "w", encoding="utf-8") as report:
        os.dup2(2, 1)  # what a library prints is no finding
        # Collecting and tidying up would take a third of the time, for nothing.
        gc.disable()
        for name in names:
            found = _CHECKS[name]()
            print(json.dumps([asdict(one) for one in found]), file=report, flush=True)
        os._exit(0)


def _checked(names: Sequence[str]) -> dict[str, list[Finding]]:
    """Do checks in a process beside this one: they may crash, or leave torch half loaded.

    All in one, as loading torch is most of the work; what follows a failure is done in a new one.
    """
    found: dict[str, list[Finding]] = {}
    while left := [name for name in names if name not in found]:
        code = f"from vmm.doctor import run_checks; run_checks({left!r})"
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        for name, line in zip(left, run.stdout.splitlines(), strict=False):
            found[name] = [Finding(**fields) for fields in json.loads(line)]
        failed = next((name for name in left if name not in found), None)
        if failed:
            reason = (run.stderr.strip().splitlines() or [""])[-1]
            if run.returncode != 1 or not reason:  # no exception of Python's
                reason = f"it ended with status {run.returncode} {reason}".strip()
            found[failed] = [Finding(failed, "broken", reason)]
    return found


def _explained(pair: Finding, present: dict[str, str]) -> Finding:
    if pair.state != "broken":
        return pair
    advice = torchvision_pair(present["torch"], present["torchvision"])
    return replace(pair, detail=f"{pair.detail}. {advice}")


def examine() -> Iterator[Finding]:
    """Look at the installation; no file is written, no network used."""
    present = {}
    for found in chain([_python()], (_package(*about) for about in _PACKAGES.items())):
        if found.state == "ok":
            present[found.name] = found.detail
        yield found
    if "open_clip_torch" in present:
        yield _requirements("open_clip_torch")
    needs = {_PAIR: {"torch", "torchvision"}, "decoding": {"av"}, "operators": {"torch"}}
    checks = _checked([name for name, packages in needs.items() if packages <= set(present)])
    for found in chain.from_iterable(checks.values()):
        yield _explained(found, present) if found.name == _PAIR else found


def _deep(recipe: list[str]) -> Iterator[Finding]:
    """Look at what a long run needs; see ``vmm.preflight``, which loads torch and Lightning."""
    there = [module for module in ("torchvision", "open_clip") if find_spec(module)]
    yield from chain.from_iterable(_checked([f"import {module}" for module in there]).values())

    from vmm.preflight import deep_checks

    for name, state, detail in deep_checks(recipe):
        yield Finding(name, state, detail, needed=state == "broken")


def main(argv: list[str]) -> int:
    """Print the report.

    Returns:
        0 if everything needed is there, else 1.
    """
    parser = CommandParser(prog="vmm doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    deep = (
        "also imports, kernels, processes and, with -c RECIPE and options of vmm fit, data and disk"
    )
    parser.add_argument("--deep", nargs=argparse.REMAINDER, default=None, help=deep)
    options = parser.parse_args(argv)
    found: list[Finding] = []
    for finding in chain(examine(), () if options.deep is None else _deep(options.deep)):
        found.append(finding)
        if not options.json:
            mark = {"ok": "ok", "missing": "--", "broken": "!!"}[finding.state]
            say(f"{mark}  {finding.name:<28} {finding.detail}", lines=True)
            sys.stdout.flush()  # the checks take seconds
    if options.json:
        say(json.dumps([asdict(f) for f in found], indent=2), lines=True)
    return int(any(f.needed and f.state != "ok" for f in found))
