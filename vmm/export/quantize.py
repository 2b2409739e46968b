"""ONNX towers with weights of 8 bits: smaller, and not quite the same vectors.

Dynamic quantisation: weights are int8 with a scale for each output channel, activations are
quantised as they come, and products are summed in int32. What stays float32: the scan, norms and
the table of words. How much recall it costs depends on the model: measure before using it, see
``docs/guides/serving.md``. Needs the extra ``onnx``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vmm.export.folder import EncoderParts
from vmm.export.programs import TEXT, example_inputs, expected

LEAST_COSINE = 0.9
"""With the model's vectors; a file below is of no use."""


def quantize_towers(
    parts: EncoderParts, folder: Path, frames: Sequence[int], which: str
) -> dict[str, float]:
    """Replace ONNX files of a folder by such of 8 bits.

    Args:
        parts: The model.
        folder: What ``vmm.export.onnx_files.write_onnx`` wrote.
        frames: Numbers of frames.
        which: "text" tower, or "all".

    Returns:
        The smallest cosine with the model's vectors, by file name.

    Raises:
        ValueError: If a package is missing, or a file has little to do with the model.
    """
    found = {}
    for name, inputs in example_inputs(parts, frames).items():
        if which == "text" and name != TEXT:
            continue
        path = folder / f"{name}.onnx"
        _quantize(path)
        want = expected(parts, name, inputs).numpy()
        found[path.name] = _smallest_cosine(path, [x.numpy() for x in inputs], want)
    return found


def _quantize(path: Path) -> None:
    """Write a file anew with weights of 8 bits."""
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise ValueError('ONNX needs the extra: pip install "vmm-video[onnx]"') from error
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        small = Path(folder) / path.name
        logging.disable(logging.WARNING)  # it recommends a step of its own each time
        try:
            quantize_dynamic(
                path,
                small,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        small.replace(path)


def _smallest_cosine(path: Path, inputs: Sequence[np.ndarray], want: np.ndarray) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    got = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = float(((got * want).sum(1) / lengths).min()) if np.isfinite(got).all() else 0.0
    if cosine < LEAST_COSINE:
        raise ValueError(
            f"{path.name} of 8 bits gives vectors whose cosine with the model's is {cosine:.3f}, "
            f"less than {LEAST_COSINE}: it is of no use; export without --quantize"
        )
    return cosine
