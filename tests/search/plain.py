"""An encoder without a model, and what a killed process does with it."""

from pathlib import Path

import numpy as np

from vmm.data.transforms import ClipSettings
from vmm.search.encode import encode_videos
from vmm.search.index import Index


class PlainEncoder:
    """Stands in for ``VideoTextEncoder``: a clip's vector is made of its pixels, one to one."""

    fingerprint = "f" * 64
    folder = Path("plain")
    clip = ClipSettings(num_frames=2, image_size=8)
    embedding_dim = 2 * 3 * 2 * 2

    def encode_video(self, clips, **_):
        pixels = np.stack([np.asarray(clip)[:, :, ::4, ::4].ravel() for clip in clips])
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)


def encode_to_be_killed(folder, videos, compact):
    """Encode in small steps, perhaps after putting the parts together."""
    index = Index.open(folder)
    if compact:
        index.compact()
    encode_videos(index, PlainEncoder(), [videos], batch_size=2, flush_seconds=0)


def move_to_be_killed(folder, videos):
    """Bring an index up to date with files that have moved; encoding one is an error."""
    encoder = PlainEncoder()
    encoder.encode_video = None
    encode_videos(Index.open(folder), encoder, [videos], flush_seconds=0)
