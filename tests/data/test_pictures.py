import io

import numpy as np
import pytest
from PIL import Image

from vmm.data.decode import DecodeError
from vmm.data.pictures import decode_image


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_images_are_clips_of_one_frame(tools, name):
    pixels = tools.moving_picture(1)[0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    expected = np.array(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    frames = decode_image(buffer.getvalue())
    assert frames.shape == (1, *pixels.shape) and frames.dtype == np.uint8
    assert np.array_equal(frames[0], expected)


def test_images_are_upright_and_rgb():
    grey = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show
    buffer = io.BytesIO()
    grey.save(buffer, "PNG", exif=exif)
    frames = decode_image(buffer.getvalue())
    assert np.array_equal(frames[0, :, :, 2], np.rot90(np.array(grey), -1))


def test_bad_images_are_decode_errors(tools):
    jpeg = tools.coded_jpeg(3)
    bomb = io.BytesIO()
    Image.new("L", (3000, 3000)).save(bomb, "PNG")
    for data, reason in ((b"", "empty"), (b"no image", "unreadable"), (jpeg[:200], "unreadable")):
        with pytest.raises(DecodeError, match=reason):
            decode_image(data)
    with pytest.raises(DecodeError, match="too large: 3000x3000"):
        decode_image(bomb.getvalue(), max_pixels=1_000_000)
