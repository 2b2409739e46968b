import io
import struct

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
    with pytest.raises(DecodeError, match=r": damaged, cut off or no picture; .* \(OSError: "):
        decode_image(jpeg[:200])
    with pytest.raises(DecodeError, match=r"none of the formats .*convert it to PNG or JPEG"):
        decode_image(b"no image")
    huge = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6)
    with pytest.raises(DecodeError, match="too large"):
        decode_image(huge)
    with pytest.raises(DecodeError, match="too large: 3000x3000"):
        decode_image(bomb.getvalue(), max_pixels=1_000_000)


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_grey_of_16_bits_keeps_its_range():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        frames = decode_image(saved(Image.fromarray(ramp), kind))
        assert frames.shape == (1, 16, 16, 3)
        assert np.array_equal(frames[0, ..., 0], np.arange(256).reshape(16, 16))
        assert np.array_equal(frames[0, ..., 0], frames[0, ..., 2])
    wide = Image.fromarray(ramp.astype(np.int32))
    assert np.array_equal(decode_image(saved(wide, "TIFF"))[0], frames[0])


@pytest.mark.parametrize("values", [[0.5, 0.1], [-3, 7], [0, 70_000]])
def test_numbers_of_no_agreed_range_are_refused(values):
    kind = np.float32 if isinstance(values[0], float) else np.int32
    with pytest.raises(DecodeError, match="convert it to 8 or 16 bits"):
        decode_image(saved(Image.fromarray(np.array([values], kind)), "TIFF"))


def half_clear():
    """Red on the left; on the right nothing, under which lies black."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = 255, 0, 0, 255
    return Image.fromarray(pixels)


def grey_of(picture):
    return Image.merge("LA", (picture.convert("L"), picture.getchannel("A")))


def test_white_paper_shows_through_what_is_transparent():
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.paste(0, (0, 0, 4, 8))
    keyed = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8))
    cases = {
        "RGBA": saved(half_clear(), "PNG"),
        "WebP": saved(half_clear(), "WEBP", lossless=True),
        "LA": saved(grey_of(half_clear()), "PNG"),
        "P": saved(palette, "PNG", transparency=1),
        "GIF": saved(palette, "GIF", transparency=1),
        "RGB with a colour that is clear": saved(keyed, "PNG", transparency=(0, 0, 0)),
    }
    for name, data in cases.items():
        (picture,) = decode_image(data)
        assert picture[0, -1].tolist() == [255, 255, 255], name
        if name != "LA":
            assert picture[0, 0].tolist() == [255, 0, 0], name
    glass = Image.new("RGBA", (2, 2), (0, 0, 0, 51))
    assert decode_image(saved(glass, "PNG"))[0, 0, 0].tolist() == [204] * 3


def test_other_modes_are_what_viewers_show():
    colours = Image.fromarray(np.full((16, 16, 3), (200, 60, 30), np.uint8))
    cmyk = decode_image(saved(colours.convert("CMYK"), "JPEG", quality=98))[0, 8, 8]
    assert np.abs(cmyk.astype(int) - (200, 60, 30)).max() < 12
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    assert np.array_equal(decode_image(saved(bits, "PNG"))[0, ..., 1], np.eye(8) * 255)
    assert np.array_equal(decode_image(saved(colours, "BMP"))[0], np.array(colours))
    assert np.array_equal(decode_image(saved(colours, "TIFF"))[0], np.array(colours))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_of_an_animation_the_first_picture_counts(kind):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    assert decode_image(data)[0, 4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations_are_applied(kind, orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 98} if kind in ("JPEG", "WEBP") else {}
    (picture,) = decode_image(saved(Image.fromarray(pixels), kind, exif=exif, **options))
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).mean() < 6


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_pictures_of_all_kinds_are_decode_errors(tools):
    """Also where Pillow raises what else would be a mistake of ours, as for broken TIFF tags."""
    rng = np.random.default_rng(2)
    picture = Image.fromarray(tools.moving_picture(1)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    outcomes = {"picture": 0, "error": 0}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        options = {"exif": exif} if kind not in ("GIF", "BMP") else {}
        whole = np.frombuffer(saved(picture, kind, **options), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            near = rng.integers(2)  # its head, or anywhere
            where = rng.integers(0, 200 if near else len(whole), rng.integers(1, 12))
            damaged[where] = rng.integers(0, 256, len(where))
            try:
                assert decode_image(damaged.tobytes()).dtype == np.uint8
                outcomes["picture"] += 1
            except DecodeError:
                outcomes["error"] += 1
    assert min(outcomes.values()) > 20
