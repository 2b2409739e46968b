import math

import numpy as np
import pytest
import torch

import vmm.data.clips as module
from tests.data import videos
from vmm.data.clips import load_frames, window
from vmm.data.decode import DecodeError, decode_video
from vmm.data.faults import SampleError
from vmm.data.schema import RawSample
from vmm.data.transforms import ClipSettings


def sample(data, **metadata):
    return RawSample("a/0", 0, "mp4", data, ["a caption"], metadata)


def all_frames(data):
    frames = decode_video(data, lambda times: range(len(times)))
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def test_frames_are_those_of_the_rule():
    data = videos.make("h264")
    settings = ClipSettings(4, 32)
    middles = all_frames(data)[[3, 10, 18, 25]]
    assert torch.equal(load_frames(sample(data), "video", settings), middles)
    settings = ClipSettings(4, 32, sampling="dense")
    frames = load_frames(sample(data), "video", settings, None, 1, 2)
    assert torch.equal(frames, all_frames(data)[26:])


def test_windows_of_the_metadata_are_kept():
    data = videos.make("h264")  # 25 frames per second
    settings = ClipSettings(4, 32, sampling="dense")
    frames = load_frames(sample(data, start=0.4, end=0.56), "video", settings)
    assert torch.equal(frames, all_frames(data)[10:14])
    seen = [
        load_frames(sample(data, start="0.4"), "video", settings, torch.Generator().manual_seed(s))
        for s in range(20)
    ]
    starts = {
        next(i for i, frame in enumerate(all_frames(data)) if torch.equal(frame, clip[0]))
        for clip in seen
    }
    assert min(starts) >= 10 and len(starts) > 4


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "flv", "mpeg"])
def test_windows_count_from_the_first_frame(container):
    """A recording whose clock begins at ten seconds is asked for its first seconds as any other."""
    codec = "mpeg2video" if container == "mpeg" else "libx264"
    kind = {"codec": codec, "container": container, "g": "12"}
    frames = videos.moving_picture(30)
    data, late = (videos.encode_video(frames, first=first, **kind) for first in (0, 250))
    seen = []
    everything = decode_video(late, lambda t: (seen.append(t), range(len(t)))[1])
    assert seen[0][0] == 0 and len(everything) == 30
    settings = ClipSettings(4, 32, sampling="dense")
    clips = [
        load_frames(sample(video, start=0.4, end=0.56), "video", settings) for video in (data, late)
    ]
    assert torch.equal(clips[0], all_frames(data)[10:14])
    assert torch.equal(clips[1], all_frames(late)[10:14])
    with pytest.raises(SampleError, match="bad window"):
        load_frames(sample(late, start=10.0, end=11.0), "video", settings)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, (-math.inf, None)),
        ({"start": None, "end": None}, (-math.inf, None)),
        ({"start": 2, "end": "3.5"}, (2.0, 3.5)),
        ({"end": 4}, (-math.inf, 4.0)),
    ],
)
def test_windows_are_seconds_or_absent(metadata, expected):
    assert window(metadata) == expected


@pytest.mark.parametrize(
    "metadata",
    [
        {"start": "soon"},
        {"end": [1]},
        {"start": math.nan},
        {"end": math.nan},
        {"start": 5.0},
        {"start": 0.8, "end": 0.4},
        {"end": -1.0},
        {"start": 10**400},
        {"end": 10**400},
        {"start": True},
        {"end": "1e400", "start": "nan"},
    ],
)
def test_impossible_windows_are_bad_samples(metadata):
    with pytest.raises(SampleError) as caught:
        load_frames(sample(videos.make("h264"), **metadata), "video", ClipSettings(4, 32))
    assert caught.value.reason == "bad window"


def test_where_decoding_happens_does_not_change_the_frames(tools):
    settings = [ClipSettings(4, 32, isolate_decode=isolate) for isolate in (False, True)]
    for raw, media in (
        (sample(videos.make("h264"), start=0.2), "video"),
        (sample(videos.make("mpeg4 avi")), "video"),
        (sample(tools.coded_jpeg(5)), "image"),
    ):
        clips = [
            load_frames(raw, media, s, torch.Generator().manual_seed(7) if n else None)
            for n in (0, 1)
            for s in settings
        ]
        assert torch.equal(clips[0], clips[1]) and torch.equal(clips[2], clips[3])
        assert clips[0].dtype == torch.uint8 and clips[0].shape[1] == 3


def test_isolation_is_asked_for_by_the_settings(monkeypatch):
    class Refusing:
        def video(self, data, choose, decoder):
            assert decoder == "pyav" and len(choose(np.arange(9.0))) == 4
            raise DecodeError("hung", "as asked")

    monkeypatch.setattr(module, "own_decoder", Refusing)
    load_frames(sample(videos.make("h264")), "video", ClipSettings(4, 32))
    with pytest.raises(DecodeError, match="hung"):
        load_frames(sample(videos.make("h264")), "video", ClipSettings(4, 32, isolate_decode=True))
