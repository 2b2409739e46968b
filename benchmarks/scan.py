"""Time of the selective scan on one CPU thread, against other implementations.

``python -m benchmarks.scan [--short]`` measures CPU time (not wall time, so other programs on the
machine matter little) with all variants interleaved in one process, and writes a JSON file, a table
and a plot. Compare the ratios rather than the milliseconds. A variant is dropped at the length
where one run would take more than a few seconds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vmm.ops.selective_scan import selective_scan

STATES = 16
WIDTHS = {"Ti": 384, "M": 1152}  # d_inner of VideoMamba-Ti and -M
OURS = ("cpu", "chunked", "reference")
YARDSTICK = "linear layers"
PACKAGES = ("torch", "llvmlite", "numpy", "transformers", "mambapy")
LIMIT_S = 4.0
"""A variant is not run at a length where it is expected to take longer."""

Scan = Callable[..., Tensor]


def variants() -> tuple[dict[str, Scan], list[str]]:
    """Return what can be measured here, and notes on what cannot."""
    scans: dict[str, Scan] = {
        name: lambda *x, name=name: selective_scan(*x, delta_softplus=True, backend=name)
        for name in OURS
    }
    notes = []
    if importlib.util.find_spec("transformers") is None:
        notes.append("transformers is not installed: its scan was not measured")
        return scans, notes
    from transformers.models.mamba import modeling_mamba

    theirs = getattr(modeling_mamba, "mamba_selective_scan", None)
    if theirs is None:
        version = importlib.metadata.version("transformers")
        notes.append(f"transformers {version} has no separate scan: it was not measured")
        return scans, notes

    def transformers_scan(*x: Tensor, pscan: bool = False) -> Tensor:
        out: Tensor | tuple[Tensor, ...] = theirs(*x, delta_softplus=True, use_mambapy=pscan)
        return out if isinstance(out, Tensor) else out[0]

    scans["transformers"] = transformers_scan
    if importlib.util.find_spec("mambapy") is None:
        notes.append("mambapy is not installed: the parallel scan was not measured")
    else:
        scans["transformers+mambapy"] = lambda *x: transformers_scan(*x, pscan=True)
    return scans, notes


def make_inputs(width: int, length: int, batch: int = 1) -> list[Tensor]:
    """Return u, delta, A, B, C, D, z, delta_bias as the mixer of the model would pass them."""
    torch.manual_seed(0)
    u, z = torch.randn(batch, length, 2 * width).transpose(1, 2).chunk(2, dim=1)
    delta = 0.5 * torch.randn(batch, length, width).transpose(1, 2)
    rank = width // 32
    selected = torch.randn(batch, length, rank + 2 * STATES).transpose(1, 2)
    _, b, c = selected.split([rank, STATES, STATES], dim=1)
    a = -torch.arange(1.0, STATES + 1).repeat(width, 1)
    bias = torch.empty(width).uniform_(-6.9, -2.3)  # steps of 0.001 to 0.1
    return [u, delta, a, b, c, torch.ones(width), z, bias]


def linear_layers(width: int, length: int) -> Scan:
    """Return the matrix products of the block around one scan, a yardstick for its cost."""
    dim, rank = width // 2, width // 32
    shapes = [(dim, 2 * width), (width, rank + 2 * STATES), (rank, width), (width, dim)]
    pairs = [(torch.randn(length, i), torch.randn(o, i).requires_grad_()) for i, o in shapes]

    def run(*leaves: Tensor) -> Tensor:
        needs = leaves[0].requires_grad
        outs = [F.linear(x.requires_grad_(needs), weight).sum() for x, weight in pairs]
        return torch.stack(outs).sum()

    return run


def timed(scan: Scan, inputs: list[Tensor], backward: bool) -> float:
    """Return the CPU seconds of one run."""
    leaves = [x.detach().requires_grad_(backward) for x in inputs]
    grad_out = torch.ones_like(inputs[0])
    start = time.process_time()
    with torch.set_grad_enabled(backward):
        out = scan(*leaves)
        if backward:
            out.backward(grad_out if out.dim() else None)
    return time.process_time() - start


def error(scan: Scan, inputs: list[Tensor]) -> dict[str, float]:
    """Return the largest relative error of output and gradient against float64."""

    def evaluate(function: Scan, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        out = function(*leaves)
        return [out, *torch.autograd.grad(out.square().mean(), leaves)]

    exact = evaluate(
        lambda *x: selective_scan(*x, delta_softplus=True, backend="chunked"), torch.float64
    )
    pairs = zip(evaluate(scan, torch.float32), exact, strict=True)
    errors = [((a - e).abs().max() / e.abs().max()).item() for a, e in pairs]
    return {"output": errors[0], "gradients": max(errors[1:])}


def measure(
    scans: dict[str, Scan], width: int, lengths: list[int], backward: bool, rounds: int
) -> list[dict[str, Any]]:
    """Time all variants at all lengths."""
    rows: list[dict[str, Any]] = []
    expected = dict.fromkeys([*scans, YARDSTICK], 0.0)
    for i, length in enumerate(lengths):
        inputs = make_inputs(width, length)
        running = scans | {YARDSTICK: linear_layers(width, length)}
        running = {name: scan for name, scan in running.items() if expected[name] < LIMIT_S}
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for scan in running.values():
            timed(scan, inputs, backward)  # warm up, compile
        for _ in range(rounds):
            for name, scan in running.items():
                if sum(seconds[name]) < LIMIT_S:
                    seconds[name].append(timed(scan, inputs, backward))
        for name, times in seconds.items():
            rows.append(
                {
                    "variant": name,
                    "d_inner": width,
                    "length": length,
                    "pass": "forward+backward" if backward else "forward",
                    "min_ms": 1e3 * min(times),
                    "median_ms": 1e3 * statistics.median(times),
                    "runs": len(times),
                }
            )
            if i + 1 < len(lengths):  # some gradients cost the square of the length
                growth = lengths[i + 1] / length
                expected[name] = min(times) * (growth**2 if backward else growth)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the fastest times as a table, and how much faster ours are than the best other."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    cases = list(dict.fromkeys((row["pass"], row["d_inner"], row["length"]) for row in rows))
    ratios = [name for name in OURS if name != "reference"]
    head = ["pass", "d_inner", "L", *names, *(f"best other : {name}" for name in ratios)]
    lines = [head, ["---"] * len(head)]
    for case in cases:
        times = {
            row["variant"]: row["min_ms"]
            for row in rows
            if (row["pass"], row["d_inner"], row["length"]) == case
        }
        others = [t for name, t in times.items() if name not in (*OURS, YARDSTICK)]
        lines.append(
            [str(part) for part in case]
            + [f"{times[name]:.2f}" if name in times else "-" for name in names]
            + [f"{min(others) / times[name]:.1f}" if others else "-" for name in ratios]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def hardware() -> dict[str, Any]:
    """Say what it ran on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        name = found.group(1) if found else name
    from vmm.ops.cpu_kernel import target

    return {
        "cpu": name,
        "llvm_cpu": target().cpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": 1,
    }


def versions() -> dict[str, str]:
    """Return the versions of what matters; packages that are missing are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            found[package] = importlib.metadata.version(package)
    return found


def plot(rows: list[dict[str, Any]], width: int, path: Path) -> None:
    """Draw time against length, on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, title in zip(axes, ("forward", "forward+backward"), strict=True):
        chosen = [row for row in rows if row["pass"] == title and row["d_inner"] == width]
        for name in dict.fromkeys(str(row["variant"]) for row in chosen):
            points = [(row["length"], row["min_ms"]) for row in chosen if row["variant"] == name]
            style = "--" if name == YARDSTICK else "-"
            axis.plot(*zip(*points, strict=True), marker="o", linestyle=style, label=name)
        axis.set(title=f"{title}, d_inner {width}", xscale="log", yscale="log", xlabel="tokens L")
        ticks = sorted({row["length"] for row in chosen})
        axis.set_xticks(ticks, labels=[str(tick) for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0].set_ylabel("CPU time of one sequence, ms")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and write the three files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one width, under a minute")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scans, notes = variants()
    widths = ["Ti"] if options.short else list(WIDTHS)
    lengths = [197, 785, 1569] if options.short else [197, 393, 785, 1569, 3137]
    rounds = 5 if options.short else 9
    rows = []
    for name in widths:
        for backward in (False, True):
            rows += measure(scans, WIDTHS[name], lengths, backward, rounds)
    inputs = make_inputs(WIDTHS["Ti"], 197)
    errors = {name: error(scan, inputs) for name, scan in scans.items()}

    today = datetime.date.today().isoformat()
    machine = hardware()
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine["cpu"]).lower()).strip("-")
    stem = f"scan_{slug}_{today}" + ("_short" if options.short else "")
    options.output.mkdir(parents=True, exist_ok=True)
    result = {
        "date": today,
        "hardware": machine,
        "versions": versions(),
        "settings": {"batch": 1, "d_state": STATES, "dtype": "float32", "rounds": rounds},
        "notes": notes,
        "error_against_float64": errors,
        "rows": rows,
    }
    (options.output / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = markdown(result, stem)
    (options.output / f"{stem}.md").write_text(text, "utf-8")
    plot(rows, WIDTHS[widths[0]], options.output / f"{stem}.png")
    print(text)


def markdown(result: dict[str, Any], stem: str) -> str:
    """Return the report."""
    parts = result["hardware"] | result["versions"]
    lines = [
        f"# Selective scan on one CPU thread, {result['date']}",
        "",
        ", ".join(f"{key} {value}" for key, value in parts.items()) + ".",
        "",
        "CPU milliseconds, the fastest of several interleaved runs; batch 1, d_state 16, float32,",
        f"with step-size bias, softplus, skip and gate. `{YARDSTICK}` are the matrix products of",
        "the block around the scan. A dash: one run was expected to take several seconds. The last",
        "columns say how many times faster ours are than the fastest other package.",
        "",
        table(result["rows"]),
        "",
        f"![time against length]({stem}.png)",
        "",
        "Largest error relative to the largest value, against float64, L = 197:",
        "",
        "| variant | output | worst gradient |",
        "| --- | --- | --- |",
    ]
    for name, errors in result["error_against_float64"].items():
        lines.append(f"| {name} | {errors['output']:.1e} | {errors['gradients']:.1e} |")
    if result["notes"]:
        lines += ["", *result["notes"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
