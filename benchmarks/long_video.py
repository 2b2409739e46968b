"""Time and memory of VideoMamba-Ti on long videos, up to an hour at one frame per second.

``python -m benchmarks.long_video [--short]``: the exact encoder in pieces
(``vmm.models.long_video``) against one pass, where one pass fits, and against the time per token of
an ordinary clip of 8 frames; and films from their files (``benchmarks.films``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import common, films, report
from vmm.models.long_video import encode_long_video
from vmm.models.videomamba import VideoMamba
from vmm.ops.tuning.cpu_setup import tune_cpu

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIP, HOUR = 8, 3600  # frames
ONE_PASS, PIECES = "one pass", "vmm, in pieces"
HALF, FILES = "vmm, in pieces, bfloat16", "vmm, in pieces, bfloat16 in files"
PORTION = 16  # frames that exist at once
GIB = 2**30

TEXT = f"""VideoMamba-Ti at 224 pixels, vmm's own settings (float32 products by oneDNN, freed memory
kept), one run each, the fastest of several for the clip of 8 frames. `{PIECES}` goes layer by
layer and piece by piece and keeps the residual stream of all tokens, in float32 unless said, in
memory unless said. Frames are made {PORTION} at a time, except for `{ONE_PASS}`, which needs all.
Memory is the peak of the whole process, Python and PyTorch included, or of the GPU; pages of mapped
files are counted as long as the system leaves them in memory. {films.TEXT}"""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        frames: Frames of a video, growing.
        most_compared: Up to so many frames all variants run, beyond only the plain one.
        depth: Layers.
        image_size: Side of the frames, pixels.
        films: Lengths of the films, seconds.
        film_height: Of the films, pixels; 16:9.
    """

    frames: tuple[int, ...]
    most_compared: int
    depth: int
    image_size: int
    films: tuple[int, ...]
    film_height: int


SHORT = Sizes((CLIP, 32, 128), 32, 24, 224, (60, 180), 360)
LONG = Sizes((CLIP, 64, 256, 1024, HOUR), 256, 24, 224, (600, 3 * HOUR), 360)


def frames_of(num_frames: int, image_size: int) -> Iterator[Tensor]:
    """Yield portions (t, 3, H, W) of a video of noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    for i in range(0, num_frames, PORTION):
        shape = min(PORTION, num_frames - i), 3, image_size, image_size
        yield torch.randn(shape, generator=generator).to(common.device())


def variants(
    encoder: VideoMamba, num_frames: int, sizes: Sizes, folder: str
) -> dict[str, Callable[[], Tensor]]:
    """Return calls that give the embedding of every frame, (T, D)."""

    def pieces(**options: Any) -> Tensor:
        frames = frames_of(num_frames, sizes.image_size)
        return encode_long_video(encoder, frames, num_frames, **options).per_step

    def one_pass() -> Tensor:
        video = torch.cat(list(frames_of(num_frames, sizes.image_size)))
        with torch.inference_mode():
            return encoder(video.unsqueeze(0), keep_temporal=True).pooled[0]

    if num_frames > sizes.most_compared:
        return {PIECES: partial(pieces, progress=num_frames == HOUR)}
    found = {ONE_PASS: one_pass, PIECES: pieces, HALF: partial(pieces, dtype=torch.bfloat16)}
    if common.device().type == "cpu":
        found[FILES] = partial(pieces, dtype=torch.bfloat16, folder=folder)
    return found


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Measure all lengths, and the clip once more in the end."""
    encoder = encoder_of(sizes)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for num_frames in report.progress([*sizes.frames, CLIP], "long video"):
            calls = variants(encoder, num_frames, sizes, folder)
            if ONE_PASS in calls:
                calls[ONE_PASS]()  # warms up, compiles
            exact = None
            for name, call in calls.items():
                row, out = run(call, 3 if num_frames == CLIP else 1)
                exact = out if name == ONE_PASS else exact
                if exact is not None:
                    row["error"] = (out - exact).abs().max().item()
                tokens = 1 + num_frames * encoder.num_patches
                row["us_per_token"] = 1e6 * row["seconds"] / tokens
                rows.append({"variant": name, "frames": num_frames, "tokens": tokens} | row)
    return rows


def encoder_of(sizes: Sizes) -> VideoMamba:
    """Return the same encoder every time."""
    torch.manual_seed(0)
    return VideoMamba(192, sizes.depth, image_size=sizes.image_size).eval().to(common.device())


def run(call: Callable[[], Tensor], times: int) -> tuple[dict[str, Any], Tensor]:
    """Return the fastest time and the peak memory of several runs, and what the last one gave."""
    outs: list[Tensor] = []
    seconds: list[float] = []
    peaks = [
        common.peak_memory(lambda: seconds.append(common.elapsed(lambda: outs.append(call()))))
        for _ in range(times)
    ]
    row: dict[str, Any] = {"seconds": min(seconds)}
    known = [peak / GIB for peak in peaks if peak is not None]
    return row | ({"peak_gib": min(known)} if known else {}), outs[-1]


def bars(rows: list[dict[str, Any]]) -> list[report.Bar]:
    """Return the promises, and what became of them, at the longest video."""
    longest = max(row["frames"] for row in rows)
    last = next(row for row in rows if row["frames"] == longest and row["variant"] == PIECES)
    clip = min(r["us_per_token"] for r in rows if (r["variant"], r["frames"]) == (ONE_PASS, CLIP))
    error = max(row["error"] for row in rows if row["variant"] == PIECES and "error" in row)
    per_token = last["us_per_token"] / clip
    found = [
        report.Bar(f"{longest} frames: time per token : of a clip", 1.3, per_token, at_most=True),
        report.Bar("largest difference from one pass", 1e-5, error, at_most=True),
    ]
    if "peak_gib" in last:
        found.append(report.Bar(f"{longest} frames: peak, GiB", 6.0, last["peak_gib"], True))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return all rows as a table."""
    columns = ["frames", "tokens", "variant", "seconds", "us_per_token", "peak_gib", "error"]

    def cell(value: Any) -> str:
        return report.number(value) if isinstance(value, float | None) else str(value)

    return report.table(columns, [[cell(row.get(key)) for key in columns] for row in rows])


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw time per token and memory against frames."""
    figure, axes = report.new_figure(2)
    names = list(dict.fromkeys(row["variant"] for row in rows))
    panels = {"us_per_token": "microseconds per token", "peak_gib": "peak memory, GiB"}
    for axis, (value, label) in zip(axes[0], panels.items(), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for frames, name in sorted({(row["frames"], row["variant"]) for row in rows}):
            same = [r for r in rows if (r["frames"], r["variant"]) == (frames, name)]
            lines[name] += [(frames, min(r[value] for r in same))] if value in same[0] else []
        report.draw_lines(axis, lines, title=label.split(",")[0], xlabel="frames", ylabel=label)
        axis.set(yscale="linear", ylim=(0, None))
    return figure


def main() -> None:
    """Measure, and write the three files."""
    options = report.options("benchmarks.long_video", __doc__, "two minutes instead of an hour")
    sizes = SHORT if options.short else LONG
    settings = sizes._asdict() | tune_cpu()
    rows = measure(sizes)
    read = films.measure(sizes.films, sizes.film_height, encoder_of(sizes), sizes.image_size)
    title = f"Long videos on {common.place()}"
    tables = {"Times and memory": table(rows), "Films from their files": films.table(read)}
    promises = [*bars(rows), *films.bars(read)]
    result = report.Report(
        "long_video", title, TEXT, settings, [*rows, *read], tables, promises, []
    )
    print(result.write(options, draw(rows)).read_text("utf-8"))


if __name__ == "__main__":
    main()
