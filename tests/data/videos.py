"""Small videos of many kinds, encoded when a test asks for them."""

import io
import os
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import av
import numpy as np

# Milliseconds: no two gaps alike.
UNEVEN = np.cumsum([7, 90, 15, 400, 33, 1, 250, 8, 60, 500, 20, 33] * 2).tolist()


def moving_picture(num_frames, height=48, width=64, seed=0):
    """Frames that differ from each other everywhere and that prediction cannot repeat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack([(x * 3 + t * 7) % 256, (y * 5 + t * 11) % 256, (x + y + t * 13) % 256], -1)
        for t in range(num_frames)
    ]
    return np.clip(
        np.stack(frames) + rng.normal(0, 8, (num_frames, height, width, 3)), 0, 255
    ).astype(np.uint8)


@contextmanager
def as_it_was_scheduled():
    """Undo what SVT-AV1 does for root: it makes the thread that calls it a real-time one for good.

    All that begins later inherits it, and threads that spin then starve those that they wait for.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@as_it_was_scheduled()
def encode_video(
    frames,
    rate=25,
    codec="libx264",
    container="mp4",
    pix_fmt="yuv420p",
    times=None,
    first=0,
    audio=None,
    muxer=None,
    **options,
):
    """Encode (T, H, W, 3) uint8.

    ``times`` in 1/1000 s make the frame rate variable. ``first`` is the number of the first frame;
    below 0, an edit list hides frames. ``audio`` says whether a silent stream comes "before" or
    "after" the video's. ``muxer`` are options of the container, the others of the codec.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=muxer or {}) as output:
        sound = _add_audio(output) if audio == "before" else None
        stream = output.add_stream(codec, rate=Fraction(rate))
        sound = _add_audio(output) if audio == "after" else sound
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.thread_count = 1
        # Every picture is new: without this each would become a key frame.
        stream.options = {"sc_threshold": "0", **options} if codec == "libx264" else options
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            elif first:
                frame.pts, frame.time_base = first + number, 1 / Fraction(rate)
            packets += stream.encode(frame)
        if sound is not None:
            _write_silence(output, sound)
        for packet in [*packets, *stream.encode(None)]:
            output.mux(packet)
    return buffer.getvalue()


def _add_audio(output):
    codec, rate = ("libopus", 48000) if output.format.name == "webm" else ("aac", 16000)
    return output.add_stream(codec, rate=rate)


def _write_silence(output, stream):
    for number in range(20):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = stream.codec_context.sample_rate
        frame.pts, frame.time_base = number * 1024, Fraction(1, frame.sample_rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def with_rotation(mp4, degrees):
    """Write a display matrix into the track header, as a phone does."""
    angle = np.deg2rad(degrees)
    cos, sin = round(np.cos(angle)), round(np.sin(angle))
    matrix = [cos, sin, 0, -sin, cos, 0, 0, 0, 1]
    fixed = [int(v * (1 << (30 if i % 3 == 2 else 16))) for i, v in enumerate(matrix)]
    start = mp4.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version 0, up to the matrix
    return mp4[:start] + np.array(fixed, ">i4").tobytes() + mp4[start + 36 :]


class Kind(NamedTuple):
    """How to make a video."""

    settings: dict
    frames: int = 30
    size: tuple[int, int] = (48, 64)
    groups: bool = True
    """Whether single groups of pictures can be decoded; else everything must be."""
    rotation: int = 0
    ordered: bool = True
    """Whether frames are shown at increasing times; else they are numbered."""


def x264(**parameters):
    """Settings that only x264 has."""
    return {"x264-params": ":".join(f"{k.replace('_', '-')}={v}" for k, v in parameters.items())}


def x265(**parameters):
    parameters = {"log_level": "none", **parameters}
    words = ":".join(f"{k.replace('_', '-')}={v}" for k, v in parameters.items())
    return {"codec": "libx265", "x265-params": words}


_VP9 = {"codec": "libvpx-vp9", "container": "webm", "g": "8"}
_AV1 = {"codec": "libsvtav1", "preset": "10"}
_HIDE = {"avoid_negative_ts": "disabled"}

KINDS = {
    "h264": Kind({"g": "12", "bf": "3"}),
    "h264 without B-frames": Kind({"g": "12", "bf": "0"}),
    "h264 baseline": Kind({"g": "12", "profile": "baseline"}),
    "h264 key frames only": Kind({"g": "1"}),
    "h264 one long group": Kind({"g": "250", "preset": "veryfast"}),
    "h264 open groups": Kind(x264(open_gop=1, keyint=8, bframes=3, b_adapt=0, b_pyramid="normal")),
    "h264 intra refresh": Kind(x264(keyint=10, bframes=3, intra_refresh=1), groups=False),
    "h264 three slices": Kind(x264(slices=3, keyint=8)),
    "h264 interlaced": Kind(x264(tff=1, keyint=8)),
    "h264 10 bit": Kind({"pix_fmt": "yuv420p10le", "g": "8"}),
    "h264 4:2:2": Kind({"pix_fmt": "yuv422p", "g": "8"}),
    "h264 4:4:4, odd size": Kind({"pix_fmt": "yuv444p", "g": "4"}, size=(47, 63)),
    "h264 grey": Kind({"pix_fmt": "gray", "g": "8"}),
    "h264 BT.709, full range": Kind({"g": "8", "colorspace": "bt709", "color_range": "pc"}),
    "h264 29.97 per second": Kind({"rate": "30000/1001", "g": "9"}),
    "h264 variable rate": Kind({"times": UNEVEN, "g": "6", "bf": "2"}, frames=24),
    "h264 variable rate, mkv": Kind(
        {"times": UNEVEN, "g": "6", "bf": "2", "container": "matroska"}, frames=24
    ),
    "h264 one frame": Kind({}, frames=1, groups=False),
    "h264 two frames": Kind({}, frames=2, groups=False),
    "h264 mkv": Kind({"container": "matroska", "rate": "24000/1001", "g": "9"}),
    "h264 mov": Kind({"container": "mov", "g": "6"}),
    "h264 avi": Kind({"container": "avi", "g": "8"}, groups=False, ordered=False),
    "h264 fragments": Kind({"g": "8", "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264 edit list hides frames": Kind({"first": -10, "g": "12", "bf": "2", "muxer": _HIDE}),
    "h264 starts late": Kind({"first": 25, "g": "12", "bf": "2"}),
    "h264 starts late, mkv": Kind({"first": 25, "g": "12", "container": "matroska"}),
    "h264 audio first": Kind({"audio": "before", "first": 5, "g": "8"}),
    "h264 audio last, mkv": Kind({"audio": "after", "container": "matroska", "g": "8"}),
    "h264 turned by 90": Kind({"g": "8"}, rotation=90),
    "h264 turned by 180": Kind({"g": "8"}, rotation=180),
    "hevc": Kind(x265(keyint=8)),
    "hevc open groups": Kind(x265(keyint=8, open_gop=1, bframes=4)),
    "hevc temporal layers": Kind(x265(keyint=16, temporal_layers=3, bframes=7)),
    "hevc 10 bit": Kind({"pix_fmt": "yuv420p10le", **x265(keyint=8)}),
    "hevc mov, edit list": Kind(
        {"first": -7, "container": "mov", "muxer": _HIDE, **x265(keyint=12)}
    ),
    "hevc mkv": Kind({"container": "matroska", **x265(keyint=8)}),
    "vp8": Kind(
        {"codec": "libvpx", "container": "webm", "g": "8", "auto-alt-ref": "1"}, groups=False
    ),
    "vp9": Kind(_VP9),
    "vp9 hidden frames": Kind(
        {**_VP9, "g": "16", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"}
    ),
    "vp9 odd size, sound": Kind({**_VP9, "audio": "before"}, size=(47, 63)),
    "vp9 mp4": Kind({**_VP9, "container": "mp4"}),
    "av1": Kind({**_AV1, "g": "8"}, size=(64, 64)),
    "av1 mkv": Kind({**_AV1, "g": "16", "container": "matroska"}, size=(64, 64)),
    "av1 webm, one group": Kind({**_AV1, "g": "250", "container": "webm"}, size=(64, 64)),
    "mpeg4": Kind({"codec": "mpeg4", "g": "8", "bf": "2"}, groups=False),
    "mpeg4 avi": Kind({"codec": "mpeg4", "container": "avi", "g": "8", "bf": "2"}, groups=False),
    "mpeg2 mkv": Kind(
        {"codec": "mpeg2video", "container": "matroska", "g": "8", "bf": "2"}, groups=False
    ),
    "h263 3gp": Kind({"codec": "h263", "container": "3gp"}, size=(96, 128), groups=False),
    "wmv2 avi": Kind({"codec": "wmv2", "container": "avi"}, groups=False),
    "mjpeg mkv": Kind({"codec": "mjpeg", "container": "matroska", "pix_fmt": "yuvj420p"}),
    "mjpeg avi": Kind({"codec": "mjpeg", "container": "avi", "pix_fmt": "yuvj422p"}),
    "prores": Kind({"codec": "prores_ks", "container": "mov", "pix_fmt": "yuv422p10le"}),
    "ffv1": Kind({"codec": "ffv1", "container": "matroska", "g": "10", "pix_fmt": "yuv444p"}),
    "huffyuv avi": Kind({"codec": "huffyuv", "container": "avi", "pix_fmt": "yuv422p"}),
    "quicktime animation": Kind(
        {"codec": "qtrle", "container": "mov", "pix_fmt": "rgb24"}, groups=False
    ),
    "h264 ts": Kind({"container": "mpegts", "g": "8", "bf": "2"}),
    "hevc ts": Kind({"container": "mpegts", **x265(keyint=8)}),
    "mpeg2 ts, sound": Kind(
        {"codec": "mpeg2video", "container": "mpegts", "g": "8", "audio": "before"}, groups=False
    ),
    "mpeg1 mpg": Kind({"codec": "mpeg1video", "container": "mpeg", "g": "8"}, groups=False),
    "mpeg2 vob": Kind({"codec": "mpeg2video", "container": "vob", "g": "8"}, groups=False),
    "mpeg2 m2v": Kind({"codec": "mpeg2video", "container": "mpeg2video"}, groups=False),
    "mpeg2 mxf": Kind(
        {"codec": "mpeg2video", "container": "mxf", "pix_fmt": "yuv422p"}, groups=False
    ),
    "h264 flv": Kind({"container": "flv", "g": "8", "bf": "2", "audio": "after"}),
    "flv1 flv": Kind({"codec": "flv", "container": "flv", "g": "8"}, groups=False),
    "wmv2 asf": Kind({"codec": "wmv2", "container": "asf", "g": "8"}, groups=False),
    "vp8 ogv": Kind({"codec": "libvpx", "container": "ogg"}, groups=False),
    "h264 f4v": Kind({"container": "f4v", "g": "8"}),
    "rv20 rm": Kind({"codec": "rv20", "container": "rm"}, size=(96, 128), groups=False),
    "dv": Kind({"codec": "dvvideo", "container": "dv"}, frames=6, size=(576, 720), groups=False),
    "gif": Kind({"codec": "gif", "container": "gif", "pix_fmt": "rgb8"}, groups=False),
}


def has_encoder(kind):
    """Tell whether this PyAV can make a kind of video."""
    try:
        av.codec.Codec(KINDS[kind].settings.get("codec", "libx264"), "w")
    except ValueError:
        return False
    return True


@cache
def make(kind):
    """Return the file; each is made once per run of the tests."""
    recipe = KINDS[kind]
    data = encode_video(moving_picture(recipe.frames, *recipe.size), **recipe.settings)
    return with_rotation(data, recipe.rotation) if recipe.rotation else data
