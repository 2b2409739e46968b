"""A trained run, loaded and written in one of the formats of ``vmm export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from vmm.export.model_card import classifier_card, find_results, model_card
from vmm.export.usage import graph_usage
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel
from vmm.models.weights import check_finite
from vmm.runs import load_model, load_run, read_config, trains
from vmm.whole import whole_folder


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
    """Write a model in one of the formats of ``vmm export``.

    Args:
        parts: The model.
        out: Folder to create, whole or not at all.
        format_name: A key of ``vmm.export.command.FORMATS``.
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
            reading, words = None, 0
            if isinstance(parts.model, VideoTextModel):
                reading = parts.model.text_encoder.complete_vocabulary(folder)
                words = parts.model.text_encoder.max_words
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
            usage = graph_usage(format_name, frames[0], classifies, reading, words)
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
