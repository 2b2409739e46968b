import pytest
import torch

from vmm.models.long_video import encode_long_video
from vmm.models.videomamba import VideoMamba

SIZES = {"embed_dim": 16, "depth": 3, "num_frames": 4, "image_size": 32, "d_state": 4}


def make_encoder(**options):
    torch.manual_seed(0)
    encoder = VideoMamba(**SIZES | {"piece_length": 7} | options).eval()
    for name in ("cls_token", "temporal_pos_embedding", "pos_embed"):
        torch.nn.init.normal_(getattr(encoder, name))
    return encoder


def one_pass(encoder, video):
    with torch.no_grad():
        return [encoder(video[None], keep_temporal=keep).pooled[0] for keep in (False, True)]


@pytest.mark.parametrize("portions", [[37], [1, 20, 16], [1] * 37], ids=["one", "some", "single"])
def test_a_long_video_equals_one_pass(portions):
    encoder = make_encoder()
    video = torch.randn(37, 3, 32, 32)
    pooled, per_step, _ = encode_long_video(encoder, iter(video.split(portions)), 37)
    whole, apart = one_pass(encoder, video)
    torch.testing.assert_close(pooled, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(per_step, apart, rtol=0, atol=1e-5)
    assert per_step.shape == (37, 16) and pooled.shape == (1, 16)


@pytest.mark.parametrize("pooling", ["cls", "avg", "cls_cat_avg"])
def test_every_pooling_and_tubelets_and_other_frame_sizes(pooling):
    encoder = make_encoder(pooling=pooling, tubelet_size=2)
    video = torch.randn(6, 3, 48, 32)
    features = encode_long_video(encoder, [video[:2], video[2:]], 6)
    for ours, expected in zip(features[:2], one_pass(encoder, video), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("keep", [False, True])
def test_tokens_are_kept_on_request(keep):
    encoder, video = make_encoder(), torch.randn(37, 3, 32, 32)
    tokens = encode_long_video(encoder, [video], 37, keep_tokens=keep).tokens
    if not keep:
        assert tokens is None
        return
    with torch.no_grad():
        torch.testing.assert_close(tokens, encoder(video[None]).tokens[0], rtol=0, atol=1e-5)


def test_files_give_the_same_and_are_removed(tmp_path):
    encoder, video = make_encoder(), torch.randn(9, 3, 32, 32)
    expected = encode_long_video(encoder, [video], 9)
    seen = []

    def frames():
        yield video[:5]
        seen.extend(path.name for path in tmp_path.rglob("*") if path.is_file())
        yield video[5:]

    in_files = encode_long_video(encoder, frames(), 9, folder=tmp_path)
    assert torch.equal(in_files.pooled, expected.pooled)
    assert torch.equal(in_files.per_step, expected.per_step)
    assert seen == ["residual"] and not list(tmp_path.iterdir())


def test_half_precision_storage_is_close():
    encoder, video = make_encoder(), torch.randn(9, 3, 32, 32)
    expected = encode_long_video(encoder, [video], 9)
    halved = encode_long_video(encoder, [video], 9, dtype=torch.bfloat16)
    assert halved.pooled.dtype == torch.float32
    assert not torch.equal(halved.per_step, expected.per_step)
    torch.testing.assert_close(halved.per_step, expected.per_step, rtol=0, atol=0.1)


def test_progress_is_shown_when_asked(capsys):
    encode_long_video(make_encoder(), [torch.randn(4, 3, 32, 32)], 4, progress=True)
    assert "4 frames: 100%" in capsys.readouterr().err
    encode_long_video(make_encoder(), [torch.randn(4, 3, 32, 32)], 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("portions", "num_frames", "message"),
    [
        ([], 4, "got 0 frames where num_frames is 4"),
        ([(3, 32, 32)], 4, "got 3 frames where num_frames is 4"),
        ([(3, 32, 32), (2, 32, 32)], 4, "do not follow 3 of 4 frames"),
        ([(2, 32, 32), (2, 16, 64)], 4, r"frames of \(3, 32, 32\); .*all of one size"),
        ([(2, 30, 32)], 2, "does not divide"),
    ],
)
def test_frames_that_do_not_fit_are_refused(portions, num_frames, message):
    frames = [torch.zeros(t, 3, h, w) for t, h, w in portions]
    with pytest.raises(ValueError, match=message):
        encode_long_video(make_encoder(), frames, num_frames)
