"""Exported encoders of every published size: do they agree with the model, and how fast is ONNX?

``python -m benchmarks.export [--short]``: VideoMamba of random weights. The files of ``vmm export``
are compared with the model at several numbers of frames; then one clip is encoded by onnxruntime,
by PyTorch with the scan in PyTorch's own operators, by PyTorch with vmm's compiled scan, and by
the encoder that is loaded from the exported folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks import common, report
from vmm.data.transforms import ClipSettings
from vmm.export import onnx_files, program_files
from vmm.export.encoder import VideoTextEncoder
from vmm.export.folder import EncoderParts, parts_of_run, write_folder
from vmm.export.frames import prepared
from vmm.export.programs import TEXT, example_inputs, expected, video_name
from vmm.models.bert import BertArchitecture
from vmm.models.text_encoder import BertTextEncoder
from vmm.models.video_text import VideoTextModel
from vmm.models.videomamba import VideoMamba
from vmm.ops.tuning.cpu_setup import tune_cpu
from vmm.runs import Run

RECIPES = Path(__file__).parent.parent / "recipes/encoders"
WRITERS = {"onnx": onnx_files.write_tower, "pt2": program_files.write_tower}
ONNX, CHUNKED, COMPILED = "onnxruntime", "PyTorch, chunked scan", "PyTorch, compiled scan"
FOLDER = "exported folder"
BACKENDS = {
    CHUNKED: {"VMM_SCAN_BACKEND": "chunked", "VMM_CONV_BACKEND": "torch"},
    COMPILED: {},
}
VARIANTS = (ONNX, CHUNKED, COMPILED, FOLDER)
RATIOS = ("ONNX : chunked", "ONNX : compiled", "folder : compiled")
Seconds = dict[str, dict[str, float]]
"""Size to variant to CPU seconds."""
TEXT_ABOUT = """Largest difference of an entry of the unit vectors, float32, two clips of 224
pixels or two captions; the text tower is BERT-base, below the layers that see the video. Then CPU
seconds for one clip, the fastest of several runs, all variants in turns;
PyTorch with the settings that vmm's commands choose (products by oneDNN)."""


class Sizes(NamedTuple):
    """How much is measured.

    Args:
        models: Names of files in ``recipes/encoders``.
        frames: Numbers of frames that are compared.
        timed_frames: One of them, which is timed.
        depth: Layers; None = each model's own.
        image_size: Side of the frames, pixels.
        rounds: See ``common.Race``.
    """

    models: tuple[str, ...]
    frames: tuple[int, ...]
    timed_frames: int
    depth: int | None
    image_size: int
    rounds: int


SHORT = Sizes(("tiny",), (8,), 8, 8, 224, 4)
LONG = Sizes(("tiny", "small", "middle", "base"), (1, 8, 64), 8, None, 224, 3)
WITH_TEXT = "middle"
"""The text tower is the same for all, so one model has it in full size."""


def parts_of(model: str, sizes: Sizes) -> EncoderParts:
    """Build a model of a published size with random weights."""
    torch.manual_seed(0)
    node = yaml.safe_load((RECIPES / f"videomamba_{model}.yaml").read_text(encoding="utf-8"))
    changed = {"image_size": sizes.image_size} | ({"depth": sizes.depth} if sizes.depth else {})
    node["init_args"] |= changed
    encoder = VideoMamba(**node["init_args"])
    bert = BertArchitecture() if model == WITH_TEXT else BertArchitecture(hidden_size=96)
    words = str(RECIPES / "bert_demo")
    text = BertTextEncoder(encoder.embed_dim, words, 9, False, architecture=bert)
    whole = VideoTextModel(encoder, text)
    for parameter in whole.parameters():  # tables start at zero, and would hide a mistake
        parameter.data += 0.02 * torch.randn_like(parameter)
    clip = ClipSettings(encoder.num_frames, encoder.image_size)
    text_node = {"class_path": f"{BertTextEncoder.__module__}.{BertTextEncoder.__name__}"}
    arguments = {"video_encoder": node, "text_encoder": text_node}
    config = {"model": {"init_args": arguments}}
    whole.eval().requires_grad_(False)
    return parts_of_run(Run(whole, clip, config, Path(), Path(), ""), "")


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def compare(model: str, parts: EncoderParts, folder: Path, frames: tuple[int, ...]) -> list[Any]:
    """Write every file and note how far it is from the model."""
    rows = []
    for name, inputs in example_inputs(parts, frames).items():
        if name == TEXT and model != WITH_TEXT:
            continue
        for kind, write in WRITERS.items():
            row: dict[str, Any] = {"size": model, "tower": name, "format": kind}
            rows.append(row | {"difference": write(parts, name, inputs, folder / f"{name}.{kind}")})
    return rows


def time_clip(parts: EncoderParts, folder: Path, sizes: Sizes) -> dict[str, float]:
    """Time one clip in onnxruntime, in PyTorch, and in the folder: seconds by variant."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    name = video_name(sizes.timed_frames)
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
    (video,) = example_inputs(parts, [sizes.timed_frames])[name]
    feed = {"video": video[:1].numpy()}

    def in_torch(values: dict[str, str]) -> Callable[[], object]:
        def call() -> object:
            with environment(values):
                return expected(parts, name, (video[:1],))

        return call

    calls: dict[str, Callable[[], object]] = {ONNX: lambda: session.run(None, feed)}
    calls |= {variant: in_torch(values) for variant, values in BACKENDS.items()}
    exported = folder / "encoder"
    exported.mkdir()
    write_folder(parts, exported)
    encoder = VideoTextEncoder.from_pretrained(exported, device="cpu")
    calls[FOLDER] = lambda: encoder.encode_video([prepared(video[0], encoder.clip)])
    race = common.Race(sizes.rounds, limit_s=120)
    return {variant: timing.fastest for variant, timing in race.run(1, calls).items()}


def tables(agreement: list[Any], seconds: Seconds) -> dict[str, str]:
    """Return all numbers."""
    return {
        "Difference from the model": report.table(
            ["size", "tower", "format", "largest difference"],
            [
                [row["size"], row["tower"], row["format"], report.number(row["difference"])]
                for row in agreement
            ],
        ),
        "CPU seconds": report.table(
            ["size", *VARIANTS, *RATIOS],
            [
                [size, *(report.number(x) for x in (*(of[v] for v in VARIANTS), *ratios(of)))]
                for size, of in seconds.items()
            ],
        ),
    }


def ratios(seconds: dict[str, float]) -> tuple[float, float, float]:
    """Return ``RATIOS``: the times of ONNX and of the folder over those of PyTorch."""
    onnx, compiled = seconds[ONNX], seconds[COMPILED]
    return onnx / seconds[CHUNKED], onnx / compiled, seconds[FOLDER] / compiled


def bars(agreement: list[Any], seconds: Seconds) -> list[report.Bar]:
    """Return the promises, and what became of them."""
    worst = max(row["difference"] for row in agreement)
    found = [report.Bar("largest difference from the model", 1e-5, worst, at_most=True)]
    for size, of in seconds.items():
        chunked, compiled, folder = ratios(of)
        what = f"{size}: ONNX, times the chunked scan's time"
        found.append(report.Bar(what, 1.5, chunked, at_most=True))
        what = f"{size}: ONNX, times the compiled scan's time"
        found.append(report.Bar(what, 3, compiled, at_most=True))
        what = f"{size}: exported folder, times the model's time"
        found.append(report.Bar(what, 1.05, folder, at_most=True))
    return found


def measure(model: str, sizes: Sizes) -> tuple[list[Any], dict[str, float]]:
    """Write, compare and time the files of one model."""
    parts = parts_of(model, sizes)
    with tempfile.TemporaryDirectory() as folder:
        agreement = compare(model, parts, Path(folder), sizes.frames)
        return agreement, time_clip(parts, Path(folder), sizes)


def write(given: report.Options, sizes: Sizes, agreement: list[Any], seconds: Seconds) -> Path:
    """Write the report; return its page."""
    figure, axes = report.new_figure(1)
    for variant in VARIANTS:
        axes[0, 0].plot(
            list(seconds), [of[variant] for of in seconds.values()], "o-", label=variant
        )
    title = f"One clip of {sizes.timed_frames} frames"
    axes[0, 0].set(yscale="log", ylabel="CPU seconds", title=title)
    axes[0, 0].legend()
    times = [
        {"size": size, "variant": variant, "seconds": time}
        for size, of in seconds.items()
        for variant, time in of.items()
    ]
    found = report.Report(
        name="export",
        title="Exported encoders",
        text=TEXT_ABOUT,
        settings=sizes._asdict(),
        rows=agreement + times,
        tables=tables(agreement, seconds),
        bars=bars(agreement, seconds),
        notes=[f"{os.getloadavg()[0]:.1f} processes wanted a processor, on the average"],
    )
    return found.write(given, figure)


def main() -> None:
    """Measure and write the report."""
    short = "VideoMamba-Ti alone, of 8 layers, at 8 frames"
    given = report.options("benchmarks.export", __doc__ or "", short)
    tune_cpu()
    sizes = SHORT if given.short else LONG
    agreement: list[Any] = []
    seconds: Seconds = {}
    for model in report.progress(sizes.models, "export"):
        rows, seconds[model] = measure(model, sizes)
        agreement += rows
    print(write(given, sizes, agreement, seconds).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
