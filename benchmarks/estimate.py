"""Time, money, storage and bounds of the published runs on 8 and 64 H100, on paper.

python -m benchmarks.estimate [--short] [--output FOLDER]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.estimate_counts import PATCHES, Counts, count

TEXT = (
    "Nothing of this was run: every number follows from counts of vmm's own models and from the "
    "assumptions in the settings below. A GPU's step is the time of its products, of the bytes "
    "that scans move and of the activations written once and read once, at a share of the peak "
    "rates, times what a block takes beyond its products and scan where that was measured "
    "(`benchmarks.block`, a CPU); `floor` is the same at the peak rates, nothing beside. Decoding "
    "is that of `benchmarks.decode` on the recipes' 12 workers per GPU. The slowest of GPU, "
    "decoding, storage and all-reduce bounds a run, as they overlap. `at A100 pace` multiplies the "
    "floor by what the authors' own runs took over their floor on an A100 (last table)."
)


class Card(NamedTuple):
    """Peak rates that the manufacturer states for one GPU (SXM)."""

    name: str
    flops: float
    """Dense bfloat16 operations per second; a multiply-add is two."""
    bytes_per_s: float
    """Of its memory."""
    memory: float
    """Bytes."""


H100 = Card("H100 80 GB", 989.4e12, 3.35e12, 80e9)
A100 = Card("A100 80 GB", 312e12, 2.039e12, 80e9)


class Assumptions(NamedTuple):
    """What no count says; change it here and run again."""

    products: float = 0.5
    """Share of the peak that products reach."""
    bandwidth: float = 0.7
    """Share of the memory's peak that scans and other operations reach."""
    rest: float = 1.14
    """Time of a block : its products and scan; measured, M, forward and backward, bfloat16."""
    dollars_per_gpu_hour: float = 3.0
    per_node: int = 8
    workers_per_gpu: int = 12
    storage_bytes_per_s: float = 5e9
    """Of a node: 40 Gb/s."""
    link_inside: float = 450e9
    """Bytes per second and GPU in one direction, inside a node."""
    link_between: float = 50e9
    """The same between nodes: 400 Gb/s for each GPU."""


class Layout(NamedTuple):
    """What a sample costs in storage and decoding (``benchmarks.decode``, 2026-11-23)."""

    name: str
    clip_bytes: float
    frame_bytes: float
    """Of a still."""
    decode_s: float
    """Of a worker for a frame."""
    whole_s: float
    """The same for all frames of a clip; decoding never takes more."""

    def read_s(self, part: Part) -> float:
        """Seconds of a worker for one sample and its copies."""
        decoding = min(part.frames * self.decode_s, self.whole_s)
        return decoding + part.copies * part.frames * AUGMENT_S


AUGMENT_S = 0.013 / 8
"""Seconds of a worker for a frame: crop, resizing and batching."""
MP4 = Layout("mp4, 360p", 1755 * 1024, 642 * 1024 / 30, 0.0934 / 8, 0.210)
JPEG = Layout("JPEG pictures, 256p", 642 * 1024, 642 * 1024 / 30, 0.0035 / 8, math.inf)


class Part(NamedTuple):
    """Samples of one kind in a run."""

    samples: int
    frames: int
    visible: int
    """Patches that the encoder sees."""
    copies: int = 1
    """Augmented from one that was read."""


class Run(NamedTuple):
    """A published run; settings as in the recipes under ``published/``."""

    name: str
    parts: tuple[Part, ...]
    passes: int
    batch: int
    """Samples read per step, all GPUs together."""
    teacher: bool = False
    text: bool = False


_VIDEO, _STILL = (8, 320), (1, 98)
_WEBVID2M, _WEBVID10M, _CC3M, _IMAGES = 2_490_000, 10_727_000, 2_880_000, 14_970_000
RUNS = (
    Run("stage 1, K400", (Part(240_436, *_VIDEO),), 800, 2048, teacher=True),
    Run("stage 1, SSv2", (Part(168_913, *_VIDEO),), 800, 2048, teacher=True),
    *(
        run
        for size, videos, stills, batch in (
            ("5M", _WEBVID2M, _CC3M, 2048),
            ("17M", _WEBVID2M, _IMAGES, 4096),
            ("25M", _WEBVID10M, _IMAGES, 4096),
        )
        for run in (
            Run(
                f"stage 2, {size}, masked",
                (Part(videos, *_VIDEO), Part(stills, *_STILL)),
                10, batch, teacher=True, text=True,
            ),
            Run(
                f"stage 2, {size}, unmasked",
                (Part(videos, 8, 8 * PATCHES), Part(stills, 1, PATCHES)),
                1, batch // 2, text=True,
            ),
        )
    ),
    Run("K400, M, 8 frames", (Part(240_436, 8, 8 * PATCHES, 2),), 45, 512),
    Run("K400, M, 64 frames", (Part(240_436, 64, 64 * PATCHES, 2),), 45, 64),
)  # fmt: skip
REPORTED = (
    (RUNS[0]._replace(passes=200), 32, 3.0),
    (Run("K400, M, 8 frames", RUNS[-2].parts, 50, 512), 16, 2.0),
)
"""Runs whose authors said how many A100 they took for how many days (VideoMamba's issue 30)."""
VISIBLE = tuple(sorted({part.visible for run in RUNS for part in run.parts if run.text}))


class Work(NamedTuple):
    """What a run asks of all GPUs, all its samples together."""

    flops: float
    moved: float
    """Bytes of scans and activations."""


def work(run: Run, counts: Counts) -> Work:
    """Add up a run; backward takes twice the products of forward."""
    flops = moved = 0.0
    for part in run.parts:
        seen = run.passes * part.samples * part.copies
        tokens = 1 + part.visible
        adds = 3 * counts.products_per_token * tokens
        if run.text:
            adds += 3 * counts.text[str(part.visible)]
        if run.teacher:
            adds += counts.teacher_per_frame * part.frames
        flops += 2 * adds * seen
        moved += (counts.scan_bytes_per_token_trained + 2 * counts.kept_per_token) * tokens * seen
    return Work(flops, moved)


def floor_s(asked: Work, gpus: int, card: Card) -> float:
    """Seconds at the peak rates, nothing beside."""
    return (asked.flops / card.flops + asked.moved / card.bytes_per_s) / gpus


def _seconds(
    run: Run, gpus: int, layout: Layout, counts: Counts, given: Assumptions
) -> tuple[dict[str, float], float]:
    """Return the seconds of each part of a whole run, each alone, and the bytes that are read."""
    asked = work(run, counts)
    steps = run.passes * sum(part.samples for part in run.parts) / run.batch
    decoded = run.passes * sum(
        part.samples * (layout if part.frames > 1 else JPEG).read_s(part) for part in run.parts
    )
    stored = run.passes * sum(
        part.samples * (layout.clip_bytes if part.frames > 1 else layout.frame_bytes)
        for part in run.parts
    )
    parameters = counts.model_parameters if run.text else counts.encoder_parameters
    link = given.link_inside if gpus <= given.per_node else given.link_between
    moved = asked.moved / (H100.bytes_per_s * given.bandwidth)
    seconds = {
        "products": asked.flops / (H100.flops * given.products) / gpus * given.rest,
        "bytes": moved / gpus * given.rest,
        "decoding": decoded / (given.workers_per_gpu * gpus),
        "storage": stored / (given.storage_bytes_per_s * gpus / given.per_node),
        "all-reduce": steps * 2 * (gpus - 1) / gpus * 4 * parameters / link,
    }
    return seconds, stored


def estimate(
    run: Run, gpus: int, layout: Layout, counts: Counts, given: Assumptions
) -> dict[str, Any]:
    """Say what a run takes on so many H100, and what bounds it."""
    steps = run.passes * sum(part.samples for part in run.parts) / run.batch
    seconds, stored = _seconds(run, gpus, layout, counts, given)
    nodes = gpus / given.per_node
    gpu = seconds["products"] + seconds["bytes"]
    bounds = {"GPU": gpu} | {name: seconds[name] for name in ("decoding", "storage", "all-reduce")}
    bound = max(bounds, key=lambda name: bounds[name])
    hours = bounds[bound] / 3600
    most = max(part.copies * (1 + part.visible) for part in run.parts)
    return {
        "run": run.name,
        "gpus": gpus,
        "layout": layout.name,
        "steps": round(steps),
        "step_ms": {name: 1e3 * value / steps for name, value in seconds.items()},
        "floor_h": floor_s(work(run, counts), gpus, H100) / 3600,
        "gpu_h": gpu / 3600,
        "bound": bound,
        "hours": hours,
        "gpu_hours": hours * gpus,
        "dollars": hours * gpus * given.dollars_per_gpu_hour,
        "read_gb_per_s_node": stored / bounds[bound] / nodes / 1e9,
        "workers_for_gpu": seconds["decoding"] / gpu * given.workers_per_gpu * given.per_node,
        "activations_gb": run.batch / gpus * most * counts.kept_per_token / 1e9,
    }


def paces(counts: Counts) -> list[dict[str, Any]]:
    """Hold the authors' own times against the floor of their GPUs."""
    rows = []
    for run, gpus, days in REPORTED:
        floor = floor_s(work(run, counts), gpus, A100) / 3600
        clips = run.passes * run.parts[0].samples / (days * 86400) / gpus
        row = {"run": f"{run.name}, {run.passes} passes", "A100": gpus, "reported_h": 24 * days}
        rows.append(row | {"floor_h": floor, "times": 24 * days / floor, "clips_per_s_gpu": clips})
    return rows


def estimates(counts: Counts, given: Assumptions) -> list[dict[str, Any]]:
    """Estimate every run on 8 and 64 GPUs in both layouts."""
    return [
        estimate(run, gpus, layout, counts, given)
        for run in RUNS
        for gpus in (8, 64)
        for layout in (MP4, JPEG)
    ]


def storage() -> list[dict[str, Any]]:
    """Say how large the corpora are in shards of 1,000 clips."""
    clips = {"Kinetics-400": 240_436, "Something-Something V2": 168_913}
    clips |= {"WebVid-2M": _WEBVID2M, "WebVid-10M": _WEBVID10M}
    return [
        {
            "corpus": name,
            "shards": -(-number // 1000),
            **{f"{layout.name}_gb": number * layout.clip_bytes / 1e9 for layout in (MP4, JPEG)},
        }
        for name, number in clips.items()
    ]


def tables(counts: Counts, given: Assumptions) -> dict[str, str]:
    """Write everything as tables; the documentation has the same lines."""
    rows, beyond = estimates(counts, given), paces(counts)
    return {
        "Hours and dollars": _hours_table(rows, beyond, given),
        "Milliseconds of a step": _step_table(rows),
        "Storage": report.table(
            ["corpus", "shards of 1,000", "mp4, TB", "JPEG, TB"],
            [
                [
                    row["corpus"],
                    f"{row['shards']:,}",
                    *(f"{row[f'{layout.name}_gb'] / 1e3:.2f}" for layout in (MP4, JPEG)),
                ]
                for row in storage()
            ],
        ),
        "What the authors' runs took over their floor": report.table(
            ["run", "A100", "hours reported", "floor, hours", "times the floor", "clips/s per GPU"],
            [
                [
                    row["run"], str(row["A100"]), f"{row['reported_h']:.0f}",
                    *(report.number(row[name]) for name in ("floor_h", "times", "clips_per_s_gpu")),
                ]
                for row in beyond
            ],
        ),
    }  # fmt: skip


def _pairs(rows: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair the two layouts of each run."""
    listed = list(rows)
    return zip(listed[::2], listed[1::2], strict=True)


def _hours_table(
    rows: list[dict[str, Any]], beyond: list[dict[str, Any]], given: Assumptions
) -> str:
    times = [row["times"] for row in beyond]
    lines = []
    for mp4, jpeg in _pairs(rows):
        slow = [jpeg["floor_h"] * factor for factor in (min(times), max(times))]
        lines.append(
            [
                mp4["run"], str(mp4["gpus"]), f"{mp4['steps']:,}", report.number(mp4["floor_h"]),
                *(
                    f"{report.number(row['hours'])} ({row['bound']}), ${row['dollars']:,.0f}"
                    for row in (jpeg, mp4)
                ),
                f"{report.number(slow[0])} to {report.number(slow[1])}",
                report.number(jpeg["read_gb_per_s_node"]),
                f"{jpeg['workers_for_gpu']:,.0f} / {mp4['workers_for_gpu']:,.0f}",
            ]
        )  # fmt: skip
    head = ["run", "H100", "steps", "floor, h", "JPEG pictures, h", "mp4, h", "at A100 pace, h"]
    return report.table([*head, "GB/s per node, JPEG", "workers per node, JPEG / mp4"], lines)


def _step_table(rows: list[dict[str, Any]]) -> str:
    names = ["products", "bytes", "all-reduce"]
    lines = []
    for mp4, jpeg in _pairs(rows):
        step = jpeg["step_ms"]
        values = [step[name] for name in names]
        values += [row["step_ms"][name] for name in ("decoding", "storage") for row in (jpeg, mp4)]
        numbers = [report.number(value) for value in (*values, jpeg["activations_gb"])]
        lines.append([jpeg["run"], str(jpeg["gpus"]), *numbers])
    head = ["run", "H100", *names, "decoding, JPEG", "decoding, mp4", "storage, JPEG"]
    return report.table([*head, "storage, mp4", "activations, GB per GPU"], lines)


def main() -> None:
    """Count, estimate and write the report."""
    given = report.options("benchmarks.estimate", __doc__ or "", "nothing")
    counts, assumed = count(VISIBLE), Assumptions()
    rows = estimates(counts, assumed)
    figure, axes = report.new_figure(1)
    chosen = [row for row in rows if row["gpus"] == 64 and row["layout"] == JPEG.name]
    for place, name in enumerate(("products", "bytes", "decoding", "storage", "all-reduce")):
        values = [row["step_ms"][name] for row in chosen]
        heights = [number + 0.16 * (place - 2) for number in range(len(chosen))]
        axes[0, 0].barh(heights, values, height=0.15, label=name)
    axes[0, 0].set(xscale="log", xlabel="ms of a step, 64 H100, JPEG pictures")
    axes[0, 0].set_yticks(range(len(chosen)), labels=[row["run"] for row in chosen], fontsize=7)
    figure.legend(fontsize=7, loc="outside lower center", ncols=5)
    page = report.Report(
        name="estimate",
        title="The published runs on H100, on paper",
        text=TEXT,
        settings={
            "counts": counts._asdict(), "assumptions": assumed._asdict(),
            "cards": [card._asdict() for card in (H100, A100)],
            "layouts": [layout._asdict() for layout in (JPEG, MP4)],
        },
        rows=[*rows, *paces(counts), *storage()],
        tables=tables(counts, assumed),
        bars=[],
        notes=[f"{name}: {value:g}" for name, value in assumed._asdict().items()],
    )  # fmt: skip
    print(page.write(given, figure).read_text(encoding="utf-8"))


def stored_counts(folder: Path = report.RESULTS) -> Counts:
    """Read the counts of the newest result file; its name ends with the day.

    Raises:
        ValueError: If there is none.
    """
    files = sorted(folder.glob("estimate_*-??-??.json"), key=lambda path: path.stem[-10:])
    if not files:
        raise ValueError(f"no estimate in {folder}; run `python -m benchmarks.estimate`")
    return Counts(**json.loads(files[-1].read_text("utf-8"))["settings"]["counts"])


if __name__ == "__main__":
    main()
