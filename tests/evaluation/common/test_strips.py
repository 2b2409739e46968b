import base64
import io
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from vmm.data.faults import SampleError
from vmm.data.transforms import ClipSettings
from vmm.evaluation.common.strips import strips

SETTINGS = ClipSettings(num_frames=8, image_size=32)


class Clips:
    settings = SETTINGS

    def __getitem__(self, index):
        if index == 1:
            raise SampleError("unreadable", "x")
        if index == 2:
            return SimpleNamespace(video=None)
        grey = torch.linspace(0, 1, 8).view(8, 1, 1, 1).expand(8, 3, 32, 32)
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (SETTINGS.mean, SETTINGS.std))
        return SimpleNamespace(video=(grey - mean) / std)


def test_frames_at_even_distances_stand_side_by_side_as_they_are():
    drawn = strips(Clips(), [0, 1, 2, 0])
    assert drawn.keys() == {0}  # those that cannot be read are left out
    data = drawn[0].removeprefix("data:image/jpeg;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), float)
    assert picture.shape == (56, 4 * 56)
    middle = picture[28, [28, 84, 140, 196]]
    assert np.allclose(middle, [0, 2 / 7 * 255, 4 / 7 * 255, 255], atol=6)
