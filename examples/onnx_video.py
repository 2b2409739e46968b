"""Run an exported ONNX video tower with numpy, PyAV and onnxruntime only: no torch, no vmm.

    vmm export RUN exported --format onnx --num-frames 8 16
    python examples/onnx_video.py exported clip.mp4 [clip.mp4 ...] [--num-frames 16]

Prints one row of the vector per clip and the cosines between the clips. The pixels are those of
vmm: frames from the middle of equal segments, squashed to a square by bicubic interpolation and
rounded to whole numbers; with antialiasing, rounded once more in between. Sums run in another order
than in torch, so at most one value in a hundred is rounded to the neighbouring one of 256.
"""

import argparse
import itertools
import json
import re
from pathlib import Path

import av
import numpy as np
import onnxruntime


def middle_frames(path: Path, count: int) -> np.ndarray:
    """Decode a clip and take the middle frame of each of ``count`` segments: (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")
            frames.append(np.rot90(pixels, round(frame.rotation / 90) % 4))
    edges = np.linspace(0, len(frames), min(count, len(frames)) + 1).astype(int)
    chosen = [(first + end - 1) // 2 for first, end in itertools.pairwise(edges)]
    chosen += chosen[-1:] * (count - len(chosen))
    return np.stack([frames[i] for i in chosen])


def bicubic_weights(old: int, new: int, antialias: bool) -> np.ndarray:
    """Return the matrix (new, old) that resizes one dimension.

    Keys' cubic kernel: a is -0.5 and the kernel is stretched over the pixels that fall together
    with antialiasing; a is -0.75, and pixels beyond the border repeat it, without.
    """
    a, stretch = (-0.5, max(old / new, 1.0)) if antialias else (-0.75, 1.0)
    weights = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        reach = int(np.ceil(2 * stretch))
        taps = np.arange(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 2)
        x = np.abs(taps - centre) / stretch
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        value = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        if antialias:
            value = np.where((taps >= 0) & (taps < old), value, 0.0)
            value /= value.sum()
        np.add.at(weights[row], taps.clip(0, old - 1), value)
    return weights


def to_input(frames: np.ndarray, settings: dict) -> np.ndarray:
    """Turn (T, H, W, 3) uint8 into the tower's input (T, 3, size, size) float32."""
    if settings["fit"] != "squash" or settings["sampling"] in ("uniform", "fps", "dense"):
        raise SystemExit("this example squashes frames from the middle of segments only")
    size = settings["image_size"]
    pixels = frames.astype(np.float64)
    if pixels.shape[1:3] != (size, size):
        rows, columns = (bicubic_weights(n, size, settings["antialias"]) for n in pixels.shape[1:3])
        pixels = np.einsum("thwc,jw->thjc", pixels, columns, optimize=True)
        if settings["antialias"]:
            pixels = pixels.clip(0, 255).round()
        pixels = np.einsum("ih,thjc->tijc", rows, pixels, optimize=True).clip(0, 255).round()
    pixels = (pixels / 255 - settings["mean"]) / settings["std"]
    return pixels.transpose(0, 3, 1, 2).astype(np.float32)


def frames_of(folder: Path, asked: int | None, trained: int) -> int:
    """Choose a number of frames: what is asked for, or as in training, or the fewest there are."""
    names = [re.fullmatch(r"video_(\d+)_frames\.onnx", path.name) for path in folder.iterdir()]
    there = sorted(int(name[1]) for name in names if name)
    if not there:
        raise SystemExit(f"{folder} has no video tower; vmm export RUN {folder} --format onnx")
    if asked is None:
        return trained if trained in there else there[0]
    if asked not in there:
        raise SystemExit(
            f"{folder} has towers of {', '.join(map(str, there))} frames, none of {asked}; "
            f"vmm export RUN OUT --format onnx --num-frames {asked}"
        )
    return asked


def main(folder: Path, clips: list[Path], num_frames: int | None = None) -> np.ndarray:
    """Encode clips: (n, E), of length 1 each."""
    settings = json.loads((folder / "video_preprocessor_config.json").read_text())
    count = frames_of(folder, num_frames, settings["num_frames"])
    tower = folder / f"video_{count}_frames.onnx"
    session = onnxruntime.InferenceSession(tower, providers=["CPUExecutionProvider"])
    frames = [to_input(middle_frames(clip, count), settings) for clip in clips]
    return session.run(None, {"video": np.stack(frames)})[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Encode clips with an exported ONNX video tower.")
    parser.add_argument("folder", type=Path, help="what vmm export --format onnx wrote")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--num-frames", type=int, help="of a tower in the folder")
    options = parser.parse_args()
    vectors = main(options.folder, options.clips, options.num_frames)
    print(vectors[:, :4])
    print(vectors @ vectors.T)
