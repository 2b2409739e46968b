"""Small clips and pictures whose colour says which they are."""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

CODECS = {"webm": "libvpx", "avi": "mpeg4", "mpg": "mpeg2video"}
FORMATS = {"mkv": "matroska", "m4v": "mp4", "mpg": "mpeg", "ts": "mpegts"}


def colour(number):
    """A flat colour for each of 125 numbers, far enough apart to survive lossy coding."""
    return np.array([number % 5, number // 5 % 5, number // 25], np.uint8) * 45 + 35


def number_of(picture):
    """Read the number back from (H, W, 3) values in 0 to 255."""
    mean = np.asarray(picture, np.float64).mean((0, 1))
    return int(((mean - 35) / 45).round() @ [1, 5, 25])


def write_clip(path, numbers, rate=10, size=(32, 48), times=None, rotation=0):
    """Write frames (H, W) of the colours of these numbers; ``times`` in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extension = path.suffix[1:].lower()
    codec = CODECS.get(extension, "libx264")
    with av.open(str(path), "w", format=FORMATS.get(extension, extension)) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "4", "g": "8"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, number in enumerate(numbers):
            pixels = np.ascontiguousarray(np.broadcast_to(colour(number), (*size, 3)))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_picture(path, number, size=(32, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.ascontiguousarray(np.broadcast_to(colour(number), (*size, 3)))
    Image.fromarray(pixels).save(path, quality=98)
    return path


def frames_of(data):
    """Decode everything: [(seconds, (H, W, 3) pixels)], by another way than the tested code's."""
    with av.open(io.BytesIO(data)) as container:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
