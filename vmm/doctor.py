"""``vmm doctor``: what is installed, which scan backend is used, what is missing and its price."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Literal

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
    "open_clip_torch": 'CLIP teachers and the per-frame ViT: pip install "vmm-video[train]"',
    "triton": "scan and convolution on GPUs: pip install triton",
    "mamba_ssm": 'another scan on GPUs: pip install "vmm-video[cuda]"',
    "causal_conv1d": 'another convolution on GPUs: pip install "vmm-video[cuda]"',
    "onnxscript": 'the export format onnx: pip install "vmm-video[onnx]"',
    "onnxruntime": 'the check of ONNX exports: pip install "vmm-video[onnx]"',
    "sentence_transformers": 'that export format: pip install "vmm-video[sentence-transformers]"',
    "gradio": 'the page of `vmm app`: pip install "vmm-video[app]"',
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
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    detail: str
    needed: bool = True


def _package(name: str, purpose: str) -> Finding:
    needed = name not in _OPTIONAL
    try:
        return Finding(name, "ok", importlib.metadata.version(name), needed)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "missing", f"needed for {purpose}", needed)


def _imports(module: str) -> Finding:
    """Import a module in a process of its own, since a failed one can leave torch half loaded."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    if run.returncode == 0:
        return Finding(f"import {module}", "ok", "works")
    reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding(f"import {module}", "broken", reason)


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

    from vmm.ops import causal_conv, selective_scan
    from vmm.ops.cpu_setup import tune_cpu

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
    return found + [Finding(name, "ok", sentence) for name, sentence in tune_cpu().items()]


def examine() -> list[Finding]:
    """Look at the installation; no file is written, no network used."""
    found = [Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")]
    found += [_package(name, purpose) for name, purpose in _PACKAGES.items()]
    present = {f.name: f.detail for f in found if f.state == "ok"}
    if "torch" in present and "torchvision" in present:
        pair = _imports("torchvision")
        if pair.state == "broken":
            advice = torchvision_pair(present["torch"], present["torchvision"])
            pair = Finding(pair.name, "broken", f"{pair.detail}. {advice}")
        found.append(pair)
        if "open_clip_torch" in present and pair.state == "ok":
            found.append(_imports("open_clip"))
    if "torch" in present:
        found += _operators()
    return found


def main(argv: list[str]) -> int:
    """Print the report.

    Returns:
        0 if everything needed is there, else 1.
    """
    parser = argparse.ArgumentParser(prog="vmm doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(argv)
    found = examine()
    if options.json:
        say(json.dumps([asdict(f) for f in found], indent=2), lines=True)
    else:
        for f in found:
            mark = {"ok": "ok", "missing": "--", "broken": "!!"}[f.state]
            say(f"{mark}  {f.name:<28} {f.detail}", lines=True)
    return int(any(f.needed and f.state != "ok" for f in found))
