"""``vmm export``: a trained run as plain files that load anywhere; torch is loaded by the work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, whole
from vmm.export.usage import UNKNOWN_LICENSE
from vmm.recipe_files import refuse_no_run
from vmm.text_output import say

FORMATS = {
    "folder": "weights, sizes, tokenizer, preprocessing, model card; vmm.VideoTextEncoder loads "
    "it, of a classifier vmm.ActionClassifier",
    "sentence-transformers": "the same twice, as a SentenceTransformer and as a CrossEncoder",
    "onnx": "a file per tower and number of frames, checked in onnxruntime",
    "pt2": "torch.export's files; with a C++ compiler also AOTInductor packages",
}


def main(argv: Sequence[str]) -> int:
    """``vmm export``; returns the exit status."""
    parser = CommandParser(
        prog="vmm export",
        description="Write the encoders of a stage-2 run, or a classifier, as files that load "
        "anywhere.",
        epilog="formats:\n" + "\n".join(f"  {k:<22} {v}" for k, v in FORMATS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", type=Path, help="run directory, checkpoint inside one, or an encoder folder")
    add("out", type=Path, help="folder to create")
    add("--format", choices=FORMATS, default="folder", help="default: %(default)s")
    add(
        "--checkpoint",
        default="best",
        help="of a run directory: best, last or a file name; with :raw, not its average",
    )
    add(
        "--num-frames",
        type=whole(1),
        nargs="+",
        default=(),
        help="frames of the graphs of onnx and pt2, a file for each number (default: as trained)",
    )
    add(
        "--quantize",
        choices=("text", "all"),
        help="of onnx: weights of 8 bits in the text tower, or in all, which costs recall",
    )
    add(
        "--results",
        type=Path,
        nargs="+",
        default=(),
        help="more files of vmm eval retrieval for the model card; those in the run are found",
    )
    add("--license", default=UNKNOWN_LICENSE, help="of the weights (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.num_frames and options.format not in ("onnx", "pt2"):
        raise ValueError(f"--num-frames is for graphs, and --format {options.format} has none")
    if options.quantize and options.format != "onnx":
        raise ValueError(f"--quantize is for --format onnx, not for {options.format}")
    if not options.run.is_file() and not (options.run / "config.json").is_file():
        refuse_no_run(options.run)

    from vmm.export.formats import export, load_parts
    from vmm.models.classifier import VideoClassifier

    parts = load_parts(options.run, options.checkpoint, options.license, options.results)
    if options.quantize and isinstance(parts.model, VideoClassifier):
        raise ValueError("--quantize is for encoders; a classifier's files stay as they are")
    differences = export(parts, options.out, options.format, options.num_frames, options.quantize)
    eight_bits = options.quantize
    lines = [
        f"{name}: int8, cosine with the model's vectors at least {number:.4f}"
        if eight_bits == "all" or (eight_bits and name == "text.onnx")
        else f"{name}: differs from the model by at most {number:.1e}"
        for name, number in differences.items()
    ]
    say("\n".join([*lines, f"wrote {options.out}"]), lines=True)
    return 0
