import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.films import NAMES, mp4
from vmm.data.decode import DecodeError
from vmm.data.transforms import ClipSettings, eval_transform
from vmm.evaluation.common.frames import read_frames, settings_of, windows
from vmm.evaluation.grounding import page as moments_page
from vmm.evaluation.long_video_qa import page as questions_page

CLIP = ClipSettings(3, 16, sampling="fps", fps=2.0)


@pytest.fixture
def film():
    return mp4([NAMES[i // 30 % 4] for i in range(150)], fps=10)


def test_a_number_of_frames_is_spread_over_the_whole_video(film):
    frames = read_frames(film, settings_of(CLIP, 5), None)
    assert frames.pixels.shape == (5, 3, 16, 16) and frames.pixels.dtype == torch.uint8
    assert frames.seconds.tolist() == pytest.approx([1.4, 4.4, 7.4, 10.4, 13.4])
    assert frames.duration == pytest.approx(15)
    assert settings_of(CLIP, None).num_frames == 3


def test_a_rate_takes_as_many_frames_as_there_are(film):
    frames = read_frames(film, CLIP, 6.0)  # more than are decoded at once
    assert len(frames.pixels) == 90
    assert frames.seconds[:4].tolist() == pytest.approx([0, 0.1, 0.3, 0.5])


def test_portions_are_what_evaluation_sees(film):
    frames = read_frames(film, CLIP, 6.0)
    portions = list(frames.portions(CLIP))
    assert [len(part) for part in portions] == [64, 26]
    expected = eval_transform(frames.pixels, CLIP)  # of that size already
    torch.testing.assert_close(torch.cat(portions), expected)


def test_shuffled_frames_are_the_same_frames(film):
    frames = read_frames(film, CLIP, 6.0)
    shuffled = frames.shuffled(3)
    pictures = [torch.cat(list(f.portions(CLIP))) for f in (frames, shuffled, frames.shuffled(3))]
    assert not torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[1], pictures[2])
    assert not torch.equal(shuffled.rows, frames.shuffled(4).rows)
    bags = [sorted(p.numpy().tobytes() for p in f) for f in pictures]
    assert bags[0] == bags[1]


def test_no_view_of_a_film_copies_its_pixels(film):
    frames = read_frames(film, CLIP, 6.0)
    views = [frames.shuffled(1), frames.blank(), *windows(frames, 8)]
    assert {view.pixels.data_ptr() for view in views} == {frames.pixels.data_ptr()}


def test_blank_frames_are_as_many_and_empty(film):
    blank = list(read_frames(film, CLIP, 6.0).blank().portions(CLIP))
    assert [len(part) for part in blank] == [64, 26] and not torch.cat(blank).any()


@pytest.mark.parametrize(
    ("total", "length", "starts"),
    [(9, 3, [0, 3, 6]), (8, 3, [0, 3, 5]), (3, 3, [0]), (2, 3, [0]), (1, 3, [0])],
)
def test_windows_cover_all_frames(film, total, length, starts):
    frames = read_frames(film, settings_of(CLIP, total), None)
    for cut in (windows(frames, length), windows(frames.blank(), length)):
        assert [w.seconds[0] for w in cut] == [frames.seconds[start] for start in starts]
        assert all(len(w.seconds) == length for w in cut)
        assert {float(s) for w in cut for s in w.seconds} == set(frames.seconds.tolist())
        assert {len(torch.cat(list(w.portions(CLIP)))) for w in cut} == {length}
    last = windows(frames, length)[-1]
    assert torch.equal(list(last.portions(CLIP))[-1][-1], list(frames.portions(CLIP))[-1][-1])


def test_what_is_no_video():
    with pytest.raises(DecodeError, match="unreadable"):
        read_frames(b"no video at all", CLIP, None)


@pytest.mark.parametrize(("page", "tiles", "seen"), [(moments_page, 8, 5), (questions_page, 12, 8)])
def test_frames_in_a_row_stand_over_their_seconds_however_few_there_are(page, tiles, seen):
    class Media:
        def film(self, video):
            return mp4(("red", "red", "red", "red", "green", "green"))

    strip = page._strip(Media(), 0, ClipSettings(4, 8))
    if isinstance(strip, bytes):
        strip = np.array(Image.open(io.BytesIO(strip)))
    assert strip.shape == (48, tiles * 48, 3)
    middles = strip[24, 24::48]
    assert list(middles[:, 1] > 128) == [number >= seen for number in range(tiles)]
