from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vmm.data.decode import decode_video
from vmm.data.transforms import eval_transform
from vmm.export.encoder import VideoTextEncoder


@pytest.fixture(scope="module")
def encoder(encoder_folder):
    return VideoTextEncoder.from_pretrained(encoder_folder, device="cpu")


def all_frames(path):
    times = []
    frames = decode_video(path.read_bytes(), lambda shown: times.extend(shown) or range(len(shown)))
    return frames, np.array(times) - times[0]


@pytest.mark.parametrize("fps", [1.0, 3.0, 1000.0])
def test_vectors_are_those_of_one_pass_over_the_frames_at_these_times(encoder, clips, fps):
    frames, times = all_frames(clips[0])
    chosen = [np.flatnonzero(times <= k / fps + 1e-9)[-1] for k in range(int(times[-1] * fps) + 1)]
    video = eval_transform(torch.from_numpy(frames[chosen]).permute(0, 3, 1, 2), encoder.clip)
    with torch.no_grad():
        pooled = encoder.model.encode_video(video[None]).pooled[0]
        want = F.normalize(encoder.model.project_video(pooled), dim=-1).numpy()
    got = encoder.encode_long_video(clips[0], fps=fps)
    np.testing.assert_allclose(got.per_frame, want, atol=1e-5)
    np.testing.assert_allclose(got.seconds, times[chosen])
    whole = encoder.encode_video([frames[chosen]], num_frames=len(chosen))[0]
    np.testing.assert_allclose(got.vector, whole, atol=1e-5)


def test_a_file_is_not_read_whole(encoder, clips, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} is read whole")

    expected = encoder.encode_long_video(clips[0].read_bytes())
    monkeypatch.setattr(Path, "read_bytes", refuse)
    np.testing.assert_array_equal(encoder.encode_long_video(clips[0]).vector, expected.vector)


def test_content_and_memory_mapped_files_give_the_same(encoder, clips, tmp_path):
    expected = encoder.encode_long_video(clips[1], fps=5)
    got = encoder.encode_long_video(clips[1].read_bytes(), fps=5, folder=tmp_path)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_encoded_is_named(encoder, clips, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read .*broken.mp4: unreadable"):
        encoder.encode_long_video(tmp_path / "broken.mp4")
    with pytest.raises(ValueError, match=r"cannot read .*none.mp4"):
        encoder.encode_long_video(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="fps 0 must be positive"):
        encoder.encode_long_video(clips[0], fps=0)
