"""A backend without a model."""

import numpy as np

from vmm.data.transforms import ClipSettings
from vmm.serving.backends import Backend, EncodedClip


class PlainBackend(Backend):
    """A clip's vector is made of its pixels, a caption's of its letters; nothing else is known."""

    name = "plain"
    clip = ClipSettings(num_frames=2, image_size=8)
    fingerprint = "f" * 64
    embedding_dim = 3
    per_frame = matches = False

    def encode_texts(self, texts):
        return np.array([[len(text), text.count("a"), 1.0] for text in texts], np.float32)

    def encode_clips(self, clips):
        return [EncodedClip(clip.mean((0, 2, 3)).numpy(), None) for clip in clips]

    def match(self, texts, clip, by):
        raise ValueError("there is no matching head")
