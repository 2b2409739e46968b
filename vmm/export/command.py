"""``vmm export``: a trained run as plain files that load anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vmm.command_line import CommandParser, whole
from vmm.export.folder import (
    EncoderParts,
    is_encoder_folder,
    parts_of_classifier,
    parts_of_run,
    read_folder,
    write_card,
    write_folder,
    write_preprocessing,
)
from vmm.export.model_card import UNKNOWN_LICENSE, classifier_card, find_results, model_card
from vmm.export.usage import graph_usage
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel
from vmm.models.weights import check_finite
from vmm.runs import load_model, load_run, read_config, trains
from vmm.text_output import say
from vmm.whole import whole_folder

FORMATS = {
    "folder": "weights, sizes, tokenizer, preprocessing, model card; vmm.VideoTextEncoder loads "
    "it, of a classifier vmm.ActionClassifier",
    "sentence-transformers": "the same twice, as a SentenceTransformer and as a CrossEncoder",
    "onnx": "a file per tower and number of frames, checked in onnxruntime",
    "pt2": "torch.export's files; with a C++ compiler also AOTInductor packages",
}


def load_parts(
    source: Path, checkpoint: str, license_name: str, results: Sequence[Path]
) -> EncoderParts:
    """Load what is to be exported.

    Args:
        source: A run directory, a checkpoint file inside one, or an encoder folder.
        checkpoint: Which of a run directory, as for ``vmm.runs.find_checkpoint``.
        license_name: Of the weights, for the model card.
        results: Files of ``vmm eval retrieval``; those inside of the run are found by themselves.

    Raises:
        ValueError: If it is none of these, or damaged.
    """
    if source.is_file():
        checkpoint, source = str(source.absolute()), source.absolute().parent.parent
        if not (source / "config.yaml").is_file():
            raise ValueError(
                f"{checkpoint} is in no run directory, so its sizes and preprocessing are not "
                "known; `vmm import` makes a run directory of a published checkpoint"
            )
    if is_encoder_folder(source):
        return read_folder(source)[0]
    if trains(read_config(source), VideoClassifier):
        classifier = load_model(source, VideoClassifier, checkpoint)
        return parts_of_classifier(classifier, classifier_card(classifier, license_name))
    run = load_run(source, checkpoint)
    found = [path for path in find_results(source) if path not in results]
    return parts_of_run(run, model_card(run, license_name, [*results, *found]))


def export(
    parts: EncoderParts,
    out: Path,
    format_name: str,
    frames: Sequence[int] = (),
    quantize: str | None = None,
) -> dict[str, float]:
    """Write a model in one of ``FORMATS``.

    Args:
        parts: The model.
        out: Folder to create, whole or not at all.
        format_name: A key of ``FORMATS``.
        frames: Numbers of frames of the graphs of ``onnx`` and ``pt2``; none = as in training.
        quantize: Files of ``onnx`` whose weights get 8 bits: "text", or "all".

    Returns:
        Largest difference to the model by file name, for formats that are other programs; of
        quantised files the smallest cosine with the model's vectors.

    Raises:
        ValueError: If the folder is not empty, a package is missing, or a file does not compute
            what the model does.
    """
    frames = sorted(set(frames)) or [parts.clip.num_frames]
    check_finite(parts.model.state_dict(), "the model cannot be exported")
    parts.model.requires_grad_(False)
    differences: dict[str, float] = {}
    with whole_folder(out) as folder:
        if format_name == "folder":
            write_folder(parts, folder)
        elif format_name == "sentence-transformers":
            parts.of(VideoTextModel)
            _sentence_transformers(parts, folder)
        else:
            write_preprocessing(parts, folder)
            if isinstance(parts.model, VideoTextModel):
                parts.model.text_encoder.complete_vocabulary(folder)
            if format_name == "onnx":
                from vmm.export.onnx_files import write_onnx

                differences = write_onnx(parts, folder, frames)
                if quantize:
                    from vmm.export.quantize import quantize_towers

                    differences |= quantize_towers(parts, folder, frames, quantize)
            else:
                from vmm.export.program_files import write_programs

                differences = write_programs(parts, folder, frames)
            classifies = isinstance(parts.model, VideoClassifier)
            has_tokenizer = (folder / "tokenizer.json").is_file()
            usage = graph_usage(format_name, frames[0], classifies, has_tokenizer)
            write_card(parts, folder, usage)
    return differences


def _sentence_transformers(parts: EncoderParts, folder: Path) -> None:
    try:
        from vmm.export.sentence_modules import write_sentence_transformers
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this format needs the package {error.name!r}; install the extra: "
            'pip install "vmm-video[sentence-transformers]"'
        ) from error
    write_sentence_transformers(parts, folder)


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
