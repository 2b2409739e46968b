"""Time and memory of whole video encoders against the number of frames.

``python -m benchmarks.encoder [--short]``: inference, one clip of 224-pixel frames, VideoMamba
against a joint space-time ViT and a TimeSformer. All layers of a model are alike, so where a whole
run would take minutes two layers are timed and the rest is multiplied; whole runs at the smallest
clip show how well that fits. With a GPU, the GPU is measured under bfloat16 autocast.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import common, report
from vmm.models.video_vit import DividedViT, JointViT
from vmm.models.videomamba import VideoMamba
from vmm.ops.scan.interface import BACKEND_VARIABLE
from vmm.ops.tuning.cpu_setup import tune_cpu

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGE_SIZE = 224
TIMED_LAYERS = 2
TI, M = "vmm VideoMamba-Ti", "vmm VideoMamba-M"
TI_LOOP = "VideoMamba-Ti, loop for a scan"
VIT_TI, VIT_S, TIMESFORMER = "joint ViT-Ti", "joint ViT-S", "TimeSformer-B"
STORED = "joint ViT-Ti, scores stored"
GROUPS = {"tiny": (TI, VIT_TI, TI_LOOP), "middle": (M, VIT_S, TIMESFORMER)}
if common.device().type == "cuda":
    GROUPS["tiny"] = (TI, VIT_TI, STORED, TI_LOOP)
DEPTHS = {TI: 24, TI_LOOP: 24, M: 32, VIT_TI: 12, STORED: 12, VIT_S: 12, TIMESFORMER: 12}
PAPER = {"seconds": 6.0, "extra_mib": 40.0}
"""How many times faster, and smaller in memory, VideoMamba-Ti is than joint attention at 64 frames
on a GPU (arXiv 2403.06977, section 1, where attention is not fused), at least."""
GOALS = {8: 1.0, 32: 2.5, 64: 4.5}
"""Frames to how many times faster VideoMamba-Ti is to be than the joint ViT-Ti, at least."""

TEXT = f"""Seconds for one clip, the fastest of several runs, all variants in turns, with vmm's own
settings for all (float32 products by oneDNN, freed memory kept). Widths and layers: `{TI}` 192, 24;
`{VIT_TI}` 192, 12; `{M}` 576, 32; `{VIT_S}` 384, 12; `{TIMESFORMER}` 768, 12; `{TI_LOOP}` is the
same model with the scan as a loop in PyTorch. On a GPU, `{VIT_TI}` and `{VIT_S}` must use PyTorch's
FlashAttention if the GPU has it; `{STORED}` keeps the scores of all pairs in memory. "2 layers"
marks times of two layers, multiplied. Extra memory is the peak beyond the loaded model and the
clip. A dash: one run was expected to take too long."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        groups: Keys of ``GROUPS``.
        frames: Frames of a clip.
        most_whole: Up to so many frames whole models run, for each of the groups.
        image_size: Side of the frames, pixels.
        rounds: See ``common.Race``.
        limit_s: See ``common.Race``.
    """

    groups: tuple[str, ...]
    frames: tuple[int, ...]
    most_whole: tuple[int, ...]
    image_size: int
    rounds: int
    limit_s: float


SHORT = Sizes(("tiny",), (8, 32), (8,), IMAGE_SIZE, 2, 4.0)
LONG = Sizes(("tiny", "middle"), (8, 16, 32, 64, 128), (64, 32), IMAGE_SIZE, 3, 30.0)


def build(name: str, depth: int, image_size: int = IMAGE_SIZE) -> nn.Module:
    """Return a model of random weights with another number of layers than its own."""
    torch.manual_seed(0)
    model: nn.Module
    if name in (TI, TI_LOOP, M):
        width = 576 if name == M else 192
        model = VideoMamba(width, depth, image_size=image_size, num_taps=0)
    elif name == TIMESFORMER:
        model = DividedViT(768, depth, 12, image_size=image_size, num_taps=0)
    else:
        width, heads = (384, 6) if name == VIT_S else (192, 3)
        model = JointViT(width, depth, heads, image_size=image_size, num_taps=0)
    return model.eval().to(common.device())


@contextmanager
def computing(name: str) -> Iterator[None]:
    """Compute as a variant says: with the loop, or one kernel of attention on a GPU."""
    if name != TI_LOOP:
        with _attention_kernel(name):
            yield
        return
    before = os.environ.get(BACKEND_VARIABLE)
    os.environ[BACKEND_VARIABLE] = "reference"
    try:
        yield
    finally:
        del os.environ[BACKEND_VARIABLE]
        if before is not None:
            os.environ[BACKEND_VARIABLE] = before


def _attention_kernel(name: str) -> AbstractContextManager[object]:
    """Return the context in which a joint ViT cannot use another kernel than it should."""
    if common.device().type == "cpu" or name not in (VIT_TI, VIT_S, STORED):
        return nullcontext()
    if name == STORED:
        return sdpa_kernel(SDPBackend.MATH)
    has_flash = torch.version.hip or torch.cuda.get_device_capability() >= (8, 0)
    return sdpa_kernel(SDPBackend.FLASH_ATTENTION) if has_flash else nullcontext()


def call_of(name: str, model: nn.Module, video: Tensor) -> Callable[[], list[Tensor]]:
    """Return a call that encodes the clip."""

    def call() -> list[Tensor]:
        lowered = torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda)
        with torch.inference_mode(), lowered, computing(name):
            out = model(video)
        return [out.tokens, out.pooled]

    return call


@functools.cache
def _models(name: str, whole: bool, image_size: int) -> dict[int, nn.Module]:
    """Return the models that are timed, by their layers."""
    depths = (DEPTHS[name],) if whole else (0, TIMED_LAYERS)
    return {depth: build(name, depth, image_size) for depth in depths}


def time_clip(
    race: common.Race, names: list[str], frames: int, whole: bool, image_size: int
) -> list[dict[str, Any]]:
    """Time all variants on one clip, whole or by two layers."""
    video = torch.randn(1, frames, 3, image_size, image_size, device=common.device())
    calls = {
        f"{name}|{depth}": call_of(name, model, video)
        for name in names
        for depth, model in _models(name, whole, image_size).items()
    }
    times = {key: timing.fastest for key, timing in race.run(frames, calls).items()}
    rows = []
    for name in names:
        depth = DEPTHS[name]
        all_layers, some, none = (times.get(f"{name}|{x}") for x in (depth, TIMED_LAYERS, 0))
        row: dict[str, Any] = {"variant": name, "frames": frames, "whole": whole}
        if all_layers is not None:
            rows.append(row | {"seconds": all_layers})
        elif some is not None and none is not None:
            row["seconds"] = none + (some - none) * depth / TIMED_LAYERS
            extra = common.extra_memory(calls[f"{name}|{TIMED_LAYERS}"])
            rows.append(row | ({} if extra is None else {"extra_mib": extra / 2**20}))
    return rows


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Time two layers at all clips, and whole models at the smaller ones."""
    rows = []
    cases = [
        (group, whole, frames)
        for group, most_whole in zip(sizes.groups, sizes.most_whole, strict=True)
        for whole in (False, True)
        for frames in sizes.frames
        if not whole or frames <= most_whole
    ]
    races = {case[:2]: common.Race(sizes.rounds, sizes.limit_s) for case in cases}
    for group, whole, frames in report.progress(cases, "encoder"):
        names = list(GROUPS[group])
        rows += time_clip(races[group, whole], names, frames, whole, sizes.image_size)
    return rows


Times = dict[tuple[str, int], float]


def chosen(rows: list[dict[str, Any]], value: str) -> Times:
    """Return (variant, frames) -> value; of whole runs where there are such."""
    ordered = sorted(rows, key=lambda row: bool(row["whole"]))
    return {(row["variant"], row["frames"]): row[value] for row in ordered if value in row}


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    times = chosen(rows, "seconds")
    found = []
    for frames in dict.fromkeys(row["frames"] for row in rows):
        goal = max((value for at, value in GOALS.items() if at <= frames), default=None)
        if goal is not None and {(TI, frames), (VIT_TI, frames)} <= times.keys():
            text = f"{TI}: times faster than {VIT_TI}, {frames} frames"
            found.append(report.Bar(text, goal, times[VIT_TI, frames] / times[TI, frames]))
    for value, goal in PAPER.items():
        of = chosen(rows, value)
        if {(TI, 64), (STORED, 64)} <= of.keys():
            what = "faster" if value == "seconds" else "smaller in extra memory"
            text = f"{TI}: times {what} than {STORED}, 64 frames (the paper)"
            found.append(report.Bar(text, goal, of[STORED, 64] / of[TI, 64]))
    return found


def tables(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return times, ratios and memory."""
    times, memory, whole = (chosen(rows, value) for value in ("seconds", "extra_mib", "whole"))
    names = list(dict.fromkeys(row["variant"] for row in rows))
    frames = list(dict.fromkeys(row["frames"] for row in rows))

    def cell(name: str, n: int) -> str:
        mark = "" if whole.get((name, n), True) else " (2 layers)"
        return report.number(times.get((name, n))) + mark

    def ratio(theirs: str, ours: str, n: int) -> str:
        both = {(theirs, n), (ours, n)} <= times.keys()
        return report.number(times[theirs, n] / times[ours, n] if both else None)

    pairs = [(VIT_TI, TI), (VIT_S, M), (TIMESFORMER, M)]
    heads = [f"{theirs} : {ours}" for theirs, ours in pairs]
    return {
        "Seconds": report.table(
            ["frames", *names], [[str(n), *(cell(name, n) for name in names)] for n in frames]
        ),
        "Times faster": report.table(
            ["frames", *heads], [[str(n), *(ratio(*pair, n) for pair in pairs)] for n in frames]
        ),
        "Extra memory, MiB": report.table(
            ["frames", *names],
            [[str(n), *(report.number(memory.get((x, n))) for x in names)] for n in frames],
        ),
    }


def fit(rows: list[dict[str, Any]]) -> str:
    """Say how well two layers, multiplied, foretell whole runs."""
    whole = {(r["variant"], r["frames"]): r["seconds"] for r in rows if r["whole"]}
    ratios = [
        row["seconds"] / whole[row["variant"], row["frames"]]
        for row in rows
        if not row["whole"] and (row["variant"], row["frames"]) in whole
    ]
    if not ratios:
        return "No whole model was run."
    return (
        f"Two layers, multiplied, give {min(ratios):.2f} to {max(ratios):.2f} times the seconds "
        f"of whole runs ({len(ratios)} cases with both)."
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw time and memory against frames, one row of panels for each group of models."""
    groups = [g for g, names in GROUPS.items() if any(r["variant"] in names for r in rows)]
    figure, axes = report.new_figure(2, len(groups))
    for panels, group in zip(axes, groups, strict=True):
        for axis, value, label in zip(
            panels, ("seconds", "extra_mib"), ("seconds", "extra memory, MiB"), strict=True
        ):
            found = sorted(chosen(rows, value).items(), key=lambda item: item[0][1])
            lines = {
                name: [(n, x) for (variant, n), x in found if variant == name]
                for name in GROUPS[group]
            }
            title = f"{label.split(',')[0]} for one clip, {group}"
            report.draw_lines(axis, lines, title=title, xlabel="frames", ylabel=label)
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.encoder", __doc__, "tiny models, whole at 8 frames only")
    sizes = SHORT if options.short else LONG
    settings = sizes._asdict() | tune_cpu()
    rows = measure(sizes)
    title = f"Video encoders on {common.place()}"
    result = report.Report(
        "encoder", title, TEXT, settings, rows, tables(rows), bars(rows), [fit(rows)]
    )
    print(result.write(options, draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
