import numpy as np
import pytest
import torch

from tests.data.videos import UNEVEN, encode_video, moving_picture
from vmm.data.clips import load_frames
from vmm.data.decode import DecodeError
from vmm.data.schema import RawSample
from vmm.data.times import end_of
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.search.windows import load_moments, spans_of

CLIP = ClipSettings(num_frames=3, image_size=16)


@pytest.mark.parametrize("seconds", [0.2, 3.9, 4, 4.1, 7.9, 8, 8.1, 11.9, 12, 12.1, 16, 17, 3600])
def test_moments_cover_a_video_without_one_too_many(seconds):
    times = 5 + np.arange(round(seconds * 10)) / 10
    spans = spans_of(times, 8, 4)
    starts, ends = zip(*spans, strict=True)
    assert starts == tuple(5 + 4 * i for i in range(len(spans)))
    assert np.isclose(ends[-1], 5 + seconds) and end_of(times) == ends[-1]
    assert all(np.isclose(end - start, 8) for start, end in spans[:-1])
    if len(spans) > 1:  # the last adds something, and is more than the rest that was missing
        assert ends[-1] > ends[-2] + 0.05 and ends[-1] - starts[-1] > 4 + 0.05
    else:
        assert seconds <= 8


def test_a_single_frame_is_a_moment():
    assert spans_of(np.array([2.0]), 8, 4) == [(2.0, 2.04)]


@pytest.mark.parametrize("sampling", [{"sampling": "uniform"}, {"sampling": "fps", "fps": 4.0}, {}])
@pytest.mark.parametrize("times", [None, UNEVEN])
def test_frames_are_those_of_a_sample_with_start_and_end(sampling, times):
    clip = ClipSettings(num_frames=3, image_size=16, **sampling)
    data = encode_video(moving_picture(24), rate=10, times=times, g="7")
    moments = list(load_moments(data, lambda t: spans_of(t, 1.0, 0.5), clip))
    assert len(moments) > 3
    for (start, end), pixels in moments:
        sample = RawSample("v", 0, "mp4", data, [], {"start": start, "end": end})
        expected = eval_transform(load_frames(sample, "video", clip), clip)
        assert torch.equal(pixels, expected)


def test_a_moment_after_the_end_is_an_error():
    data = encode_video(moving_picture(10), rate=10)
    with pytest.raises(DecodeError, match="bad window"):
        next(load_moments(data, lambda times: [(5.0, 6.0)], CLIP))


def test_moments_begin_with_the_first_frame_whatever_the_clock_says():
    frames = moving_picture(24)
    spans = []
    for first, container in ((0, "mp4"), (100, "mp4"), (100, "mpegts")):
        data = encode_video(frames, rate=10, first=first, container=container, g="7")
        spans.append([s for s, _ in load_moments(data, lambda t: spans_of(t, 1.0, 0.5), CLIP)])
    assert spans[0][0] == (0.0, 1.0) and len(spans[0]) == 4
    for other in spans[1:]:
        np.testing.assert_allclose(other, spans[0], atol=1e-6)
