"""The towers as ONNX files of standard operators, checked in onnxruntime before anybody uses them.

Needs the extra ``onnx``. Shape legend: see ``vmm.types``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vmm.export.folder import EncoderParts
from vmm.export.programs import TEXT, example_inputs, expected, largest_difference, trace
from vmm.export.standard_ops import standard_decompositions
from vmm.models.classifier import VideoClassifier
from vmm.models.video_text import VideoTextModel

MAX_WORDS = "max_words"
"""Metadata of the text tower: tokens of the longest caption; longer ones are cut to it."""
_INPUTS = {TEXT: ["input_ids", "attention_mask"]}


def write_onnx(parts: EncoderParts, folder: Path, frames: Sequence[int]) -> dict[str, float]:
    """Write ``video_<n>_frames.onnx`` for every number of frames, and ``text.onnx``.

    Args:
        parts: The model.
        folder: Where to.
        frames: Numbers of frames.

    Returns:
        Largest difference to PyTorch, by file name.

    Raises:
        ValueError: If a package is missing or a file computes something else than the model.
    """
    return {
        f"{name}.onnx": write_tower(parts, name, inputs, folder / f"{name}.onnx")
        for name, inputs in example_inputs(parts, frames).items()
    }


def write_tower(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Write and check one file.

    Args:
        parts: The model.
        name: A key of ``vmm.export.programs.example_inputs``.
        inputs: Its value: (B, T, C, H, W), or twice (B, S).
        path: The file to write.

    Returns:
        The largest difference to PyTorch.

    Raises:
        ValueError: As for ``write_onnx``.
    """
    try:
        from onnxscript import optimizer
    except ModuleNotFoundError as error:
        raise ValueError('ONNX needs the extra: pip install "vmm-video[onnx]"') from error
    program = trace(parts, name, inputs).run_decompositions(standard_decompositions())
    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=_INPUTS.get(name, ["video"]),
        output_names=["logits" if isinstance(parts.model, VideoClassifier) else "vectors"],
        optimize=False,  # takes as long as all else; the two steps below give the same speed
    )
    assert written is not None
    optimizer.fold_constants(written.model)
    optimizer.remove_unused_nodes(written.model)
    if name == TEXT:
        text = parts.of(VideoTextModel).text_encoder
        written.model.metadata_props[MAX_WORDS] = str(text.max_words)
    written.save(path)
    return check_onnx(parts, name, inputs, path)


def check_onnx(parts: EncoderParts, name: str, inputs: tuple[Tensor, ...], path: Path) -> float:
    """Compare a file with the model, on the given inputs and on the first of them alone.

    Args:
        parts: The model.
        name: A key of ``vmm.export.programs.example_inputs``.
        inputs: Its value: (B, T, C, H, W), or twice (B, S).
        path: The file.

    Returns:
        The largest difference.

    Raises:
        ValueError: As ``largest_difference``.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    differences = []
    for rows in (slice(None), slice(1)):
        part = tuple(x[rows] for x in inputs)
        feed = dict(zip(names, (x.numpy() for x in part), strict=True))
        got = torch.from_numpy(session.run(None, feed)[0])
        want = expected(parts, name, part)
        advice = "try another version of torch, onnxscript or onnxruntime"
        differences.append(largest_difference(path, got, want, advice))
    return max(differences)
