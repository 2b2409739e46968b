import pytest
import torch

from tests.data.videos import encode_video
from vmm.data.decode import DecodeError
from vmm.data.schema import RawSample
from vmm.data.transforms import ClipSettings
from vmm.data.views import Views
from vmm.evaluation.classification.views import ViewedClips, ViewedEncoder
from vmm.evaluation.common.models import ClipVectors

SETTINGS = ClipSettings(2, 16, (0.0,) * 3, (1.0,) * 3, sampling="random_finetune", fit="crop")


class OneFilm:
    """Frames become brighter over time, and redder from left to right."""

    kind = "video"
    lost = {}  # noqa: RUF012

    def __init__(self):
        level = torch.arange(12).view(12, 1, 1, 1) * 8 + 40
        film = level.expand(12, 16, 48, 3).clone()
        film[..., 0] = torch.linspace(0, 250, 48)
        self.data = encode_video(film.byte().numpy(), preset="ultrafast", crf="2")

    def __len__(self):
        return 1

    def raw(self, index):
        if index:
            raise DecodeError("empty", "")
        return RawSample("a", 0, "mp4", self.data, [], {})

    def fingerprint(self):
        return "film"


def test_views_are_clips_over_time_and_crops_over_the_width():
    clips = ViewedClips(OneFilm(), ["id", "lost"], SETTINGS, Views(2, 3))
    sample = clips[0]
    assert sample.key == "id" and sample.video.shape == (6, 2, 3, 16, 16)
    views = sample.video.unflatten(0, (2, 3))
    red, green = (views[:, :, :, c].mean((2, 3, 4)) for c in (0, 1))
    assert (red.diff(dim=1) > 0.2).all()  # crops go from left to right
    assert (green.diff(dim=0) > 0.02).all()  # clips go from early to late
    assert red.diff(dim=0).abs().max() < 0.05 and green.diff(dim=1).abs().max() < 0.05
    lost = clips[1]
    assert lost.video is None and lost.problem == "empty" and lost.key == "lost"


def test_one_view_is_the_middle():
    one, three = (
        ViewedClips(OneFilm(), ["id"], SETTINGS, Views(1, crops))[0].video for crops in (1, 3)
    )
    assert torch.equal(one[0], three[1])


def test_data_seen_otherwise_are_other_features():
    prints = {ViewedClips(OneFilm(), ["id"], SETTINGS, v).fingerprint()
              for v in (Views(), Views(2), Views(1, 2))}  # fmt: skip
    assert len(prints) == 3


def test_views_that_would_be_equal_are_refused():
    squash = ClipSettings(2, 16)
    with pytest.raises(ValueError, match="all the same"):
        ViewedClips(OneFilm(), ["id"], squash, Views(1, 3))
    with pytest.raises(ValueError, match="at least 1"):
        Views(0, 3)


def test_views_of_a_sample_stay_together():
    class Mean:
        name, clip = "mean", SETTINGS

        def identity(self):
            return {}

        def encode_videos(self, video):
            return ClipVectors(video.mean((3, 4))[:, :1])  # P = 1

    video = torch.randn(3, 4, 2, 3, 8, 8)
    found = ViewedEncoder(Mean()).encode_videos(video).projected
    assert found.shape == (3, 4, 3)
    torch.testing.assert_close(found, video[:, :, 0].mean((3, 4)))


def test_reversed_views_are_the_same_ones_backwards():
    forward, backward = (
        ViewedClips(OneFilm(), ["id"], SETTINGS, Views(2, 3), order)
        for order in ("forward", "reversed")
    )
    assert torch.equal(backward[0].video, forward[0].video.flip(1))
    assert not torch.equal(backward[0].video, forward[0].video)
    assert (forward.frame_order, backward.frame_order) == ("forward", "reversed")
