"""Tiny videos of plain frames."""

import io

import av
import numpy as np

COLOURS = {"red": (240, 0, 0), "green": (0, 240, 0), "blue": (0, 0, 240), "white": (240, 240, 240)}
NAMES = list(COLOURS)


def mp4(colours, fps=1):
    """Encode a frame of each of these colours."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10"}
        for colour in colours:
            pixels = np.full((32, 32, 3), COLOURS[colour], dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
