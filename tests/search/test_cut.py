import io

import av
import numpy as np
import pytest

from tests.data.videos import encode_video
from vmm.data.decode import DecodeError
from vmm.search.cut import cut_moment

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def film(height, width, rate):
    """Three seconds, one colour each."""
    frames = [np.full((height, width, 3), c, np.uint8) for c in COLOURS for _ in range(rate)]
    return encode_video(np.stack(frames), rate=rate, g="50")


def decode(data):
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and not container.streams.audio
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        return np.stack(frames), float(stream.duration * stream.time_base)


@pytest.mark.parametrize("rate", [4, 12, 30])
def test_a_film_shows_the_moment_and_nothing_else(rate):
    for second, colour in enumerate(COLOURS):
        frames, seconds = decode(cut_moment(film(48, 64, rate), second, second + 1))
        assert seconds == pytest.approx(1, abs=0.1) and len(frames) == 12
        assert np.abs(frames.astype(int) - colour).max() < 12


def test_films_are_small_and_of_even_size(tmp_path):
    (tmp_path / "large.mp4").write_bytes(film(260, 1000, 4))
    frames, _ = decode(cut_moment(tmp_path / "large.mp4", 0, 3))
    assert frames.shape == (36, 124, 480, 3)
    assert frames[6].argmax(-1).max() == 0 and frames[30].argmax(-1).min() == 2
    data = encode_video(np.zeros((8, 47, 63, 3), np.uint8), rate=4, pix_fmt="yuv444p")
    assert decode(cut_moment(data, 0, 2))[0].shape[1:3] in ((46, 62), (48, 64), (48, 62), (46, 64))


def test_no_such_moment():
    with pytest.raises(DecodeError, match="bad window"):
        cut_moment(film(48, 64, 4), 7, 8)


def test_moments_count_from_the_first_frame():
    frames = np.stack([np.full((48, 64, 3), c, np.uint8) for c in COLOURS for _ in range(12)])
    late = encode_video(frames, rate=12, first=120, container="mpegts", g="12")
    for second, colour in enumerate(COLOURS):
        shown, _ = decode(cut_moment(late, second, second + 1))
        assert np.abs(shown.astype(int) - colour).max() < 12
