"""Files of all kinds as ``make_shards`` reads them, beside what training sees of them."""

import io
import struct
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import pytest

from tests.data import videos
from vmm.data.decode import decode_video
from vmm.data.faults import SampleError
from vmm.data.times import frames_between
from vmm.shards.media_files import open_video, read_image, try_video


def one_time_twice():
    """MJPEG of which every time is that of two frames."""
    buffer, frames = io.BytesIO(), videos.moving_picture(30)
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        packets = [stream.encode(av.VideoFrame.from_ndarray(x, "rgb24")) for x in frames]
        for number, packet in enumerate(chain(*packets, stream.encode(None))):
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = number // 2 * 80
            output.mux(packet)
    return buffer.getvalue()


JUMPING = {
    "two recordings in one ts": lambda: videos.make("h264 ts") * 2,
    "the later one first, ts": lambda: (
        videos.encode_video(videos.moving_picture(20), first=500, container="mpegts", g="8")
        + videos.make("h264 ts")
    ),
    "two recordings in one mpg": lambda: videos.make("mpeg1 mpg") * 2,
    "one time twice": one_time_twice,
    "times before 0, mkv": lambda: videos.encode_video(
        videos.moving_picture(30),
        first=-10,
        container="matroska",
        muxer={"avoid_negative_ts": "disabled"},
    ),
}


@pytest.mark.parametrize("kind", [*videos.KINDS, *JUMPING])
def test_windows_hold_the_frames_that_training_would_see(kind):
    content, seen = JUMPING[kind]() if kind in JUMPING else videos.make(kind), []
    decode_video(content, lambda t: (seen.append(t), [0])[1])
    times = seen[-1]
    for start, end in ((None, None), (0.5, None), (1.04, None), (0.1, 0.2)):
        if (start or 0) > times[-1]:
            continue
        first, last = frames_between(times, -1.0 if start is None else start, end)
        with open_video(io.BytesIO(content)) as video:
            # A second time, after frames have been taken; FFmpeg cannot go back before time 0.
            for _ in range(1 if "before 0" in kind else 2):
                shown = [float(time) for time, _ in video.frames(start, end)]
                assert len(shown) == last - first and shown[0] == 0
                # The first frame is shown from the start of the window on.
                expected = times[first:last] - (start or 0)
                np.testing.assert_allclose(shown[1:], expected[1:], atol=2e-3)


def windows_of(content, start, end):
    """Tell how many frames a window has, 0 if it is none: in training, and of one that is cut."""
    seen = []
    decode_video(content, lambda t: (seen.append(t), [0])[1])
    with open_video(io.BytesIO(content)) as video:
        cut = len(list(video.frames(start, end)))
    try:
        first, last = frames_between(seen[-1], start, end)
    except ValueError:
        return 0, cut
    return last - first, cut


def test_what_the_header_says_of_the_length_does_not_count():
    film = videos.encode_video(videos.moving_picture(30), container="matroska", g="8")
    place = film.index(b"\x44\x89\x88") + 3  # the duration, milliseconds
    long = film[:place] + struct.pack(">d", 100_000.0) + film[place + 8 :]
    times = [0, 40, 80, 120, 5000]
    uneven = videos.encode_video(videos.moving_picture(5), times=times)
    assert windows_of(long, 1.19, None) == (1, 1)
    assert windows_of(long, 1.21, None) == windows_of(long, 50, 60) == (0, 0)
    assert windows_of(uneven, 5.5, 6) == (1, 1)  # frames last 1.25 s on average
    assert windows_of(uneven, 6.5, 7) == (0, 0)


def test_a_frame_is_tried_as_training_will(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(videos.make("h264"))
    try_video(path, None, None)
    try_video(path, 0.4, 0.5)
    with pytest.raises(SampleError, match="bad window"):
        try_video(path, 7.0, None)
    path.write_bytes(b"")
    with pytest.raises(SampleError, match="empty"):
        try_video(path, None, None)


def test_pictures_are_those_of_training(tmp_path):
    from PIL import Image

    from vmm.data.pictures import decode_image

    path = tmp_path / "a.png"
    Image.fromarray(np.arange(0, 60000, 1000, np.uint16).reshape(6, 10)).save(path)
    properties, picture = read_image(path)
    assert np.array_equal(np.array(picture), decode_image(path.read_bytes())[0])
    assert (properties.width, properties.height, properties.codec) == (10, 6, "png")
    path.write_bytes(b"nothing")
    with pytest.raises(SampleError, match="unreadable"):
        read_image(path)
