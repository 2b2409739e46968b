"""Our shards are WebDataset shards, and WebDataset's are ours."""

import io

import numpy as np
import pytest
from PIL import Image

from vmm.data.shards import EvaluationClips
from vmm.data.transforms import ClipSettings

wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
SETTINGS = ClipSettings(num_frames=1, image_size=32)


def jpeg(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), level, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_shards_written_by_webdataset_are_read(tmp_path):
    path = tmp_path / "images-000000.tar"
    with wds.TarWriter(str(path)) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i:09d}", "jpg": jpeg(80 * i), "txt": f"level {i}"})
    clips = EvaluationClips(str(path), SETTINGS, kind="image")
    assert [clip.captions for clip in clips] == [["level 0"], ["level 1"], ["level 2"]]
    means = [clip.video.mean().item() for clip in clips]
    assert means[0] < means[1] < means[2]


def test_our_shards_are_read_by_webdataset(demo_shards):
    path = next(demo_shards.folder.glob("test-*.tar"))
    ours = EvaluationClips(str(path), ClipSettings(num_frames=2, image_size=64))
    theirs = list(wds.WebDataset(str(path), shardshuffle=False))
    assert [sample["txt"].decode() for sample in theirs] == [clip.captions[0] for clip in ours]
    assert all(len(sample["mp4"]) > 1000 for sample in theirs)
