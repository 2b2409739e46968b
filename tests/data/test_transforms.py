import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vmm.data.auto_augment import auto_augment
from vmm.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ClipSettings,
    augmented,
    eval_transform,
    fit_frames,
    normalise,
    random_crop_box,
    train_transform,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def frames(num_frames=3, height=40, width=56):
    return torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8)


def seen(frames, settings, generator, captions):
    """What an encoder sees of a training clip."""
    pixels = train_transform(frames, settings, generator, captions)
    return pixels if settings.random_erasing else normalise(pixels, settings)


@pytest.mark.parametrize("antialias", [True, False])
def test_evaluation_squashes_bicubically_and_rounds(antialias):
    clip = frames()
    settings = ClipSettings(num_frames=3, image_size=24, antialias=antialias)
    source = clip if antialias else clip.float()
    resized = F.interpolate(source, (24, 24), mode="bicubic", antialias=antialias)
    pixels = resized.float().clamp(0, 255).round()
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    actual = eval_transform(clip, settings)
    assert actual.dtype == torch.float32 and actual.shape == (3, 3, 24, 24)
    torch.testing.assert_close(actual, (pixels / 255 - mean) / std, rtol=0, atol=1e-5)


def test_all_frames_of_a_clip_get_the_same_crop_and_flip():
    still = frames(1).expand(4, -1, -1, -1)
    settings = ClipSettings(num_frames=4, image_size=24, flip=True)
    outcomes = set()
    for seed in range(10):
        clip = train_transform(still, settings, seeded(seed), [])
        assert torch.equal(clip, clip[:1].expand_as(clip))
        outcomes.add(clip.sum().item())
    assert len(outcomes) > 5


def test_training_crops_come_from_the_frame():
    # Every pixel says where it is, so the corners of the crop tell the box.
    place = torch.arange(64).view(1, 1, 1, 64).expand(1, 3, 64, 64).to(torch.uint8)
    settings = ClipSettings(1, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop_scale=(0.25, 0.5))
    widths = set()
    for seed in range(30):
        row = train_transform(place, settings, seeded(seed), [])[0, 0, 0].int()
        assert (row.diff() >= 0).all()
        widths.add(round((row[-1] - row[0]).item()))
    assert min(widths) >= 24 and max(widths) <= 55 and len(widths) > 8


def test_whole_frames_when_the_crop_is_everything():
    clip = frames(2, 32, 32)
    settings = ClipSettings(2, 32, crop_scale=(1.0, 1.0))
    assert torch.equal(train_transform(clip, settings, seeded(0), []), fit_frames(clip, settings))


def test_mirrors_only_when_asked():
    clip = frames(1, 32, 32)
    plain = fit_frames(clip, ClipSettings(1, 32))
    for flip, expected in ((False, {0}), (True, {0, 1})):
        settings = ClipSettings(1, 32, crop_scale=(1.0, 1.0), flip=flip)
        seen = set()
        for seed in range(20):
            result = train_transform(clip, settings, seeded(seed), [])
            mirrored = torch.equal(result, plain.flip(-1))
            assert mirrored or torch.equal(result, plain)
            seen.add(int(mirrored))
        assert seen == expected


def mirrors(captions, **settings):
    """Which seeds mirror a clip with these captions."""
    clip = frames(1, 32, 32)
    settings = ClipSettings(1, 32, crop_scale=(1.0, 1.0), **settings)
    plain = fit_frames(clip, settings)
    return [
        seed
        for seed in range(20)
        if not torch.equal(train_transform(clip, settings, seeded(seed), captions), plain)
    ]


@pytest.mark.parametrize(
    "caption",
    ["it moves to the Left", "the rightmost cup", "RIGHT-handed", "turning counter-clockwise"],
)
def test_clips_whose_captions_name_a_side_are_mirrored_only_when_asked(caption):
    usual = mirrors(["a cup"], flip=True)
    assert 4 < len(usual) < 16
    assert mirrors([caption], flip=True) == []
    assert mirrors(["a cup", caption], flip=True) == []
    assert mirrors([caption], flip=True, flip_sided=True) == usual
    assert mirrors(["a bright cleft"], flip=True) == usual  # "right" and "left" inside words


def test_captions_do_not_change_the_draws():
    clip, settings = frames(), ClipSettings(3, 24, flip=True)
    after = []
    for captions in ([], ["to the left"]):
        generator = seeded(2)
        train_transform(clip, settings, generator, captions)
        after.append(torch.rand((), generator=generator).item())
    assert after[0] == after[1]


@pytest.mark.parametrize(("height", "width"), [(40, 56), (57, 33), (24, 24), (12, 90), (24, 31)])
@pytest.mark.parametrize("antialias", [True, False])
def test_torchvision_has_the_same_pixels(height, width, antialias):
    tv = pytest.importorskip("torchvision.transforms.v2.functional")
    clip = frames(2, height, width)
    source = clip if antialias else clip.float()  # the published code worked in float
    options = {"interpolation": tv.InterpolationMode.BICUBIC, "antialias": antialias}

    def finish(pixels):
        pixels = pixels.float().clamp(0, 255).round() / 255
        return tv.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_STD))

    squash = ClipSettings(2, 24, antialias=antialias)
    resized = tv.resize(source, [24, 24], **options)
    assert torch.equal(eval_transform(clip, squash), finish(resized))
    crop = ClipSettings(2, 24, fit="crop", antialias=antialias)
    resized = tv.resize(source, [24], **options)
    assert torch.equal(eval_transform(clip, crop), finish(tv.center_crop(resized, [24, 24])))


def test_every_byte_is_divided_before_it_is_moved_as_in_float64():
    """The numbers of a published model: x / 255, then the mean, then the deviation, in float32."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    found = normalise(values, ClipSettings(2, 16))
    exact = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        expected = (exact - np.float32(mean)) / np.float32(std)
        assert (found[1, channel].flatten().numpy() == expected).all()


def test_where_decoders_put_the_channels_does_not_matter():
    clip = frames(2, 57, 33)
    channels_last = clip.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for antialias in (True, False):
        settings = ClipSettings(2, 24, antialias=antialias)
        one, other = (eval_transform(x, settings) for x in (clip, channels_last))
        assert torch.equal(one, other) and other.is_contiguous()


def test_shapes_are_kept_when_the_centre_is_cropped():
    # A disc in a wide frame stays round; squashed, it does not.
    y, x = torch.meshgrid(torch.arange(60), torch.arange(120), indexing="ij")
    disc = ((y - 29.5) ** 2 + (x - 59.5) ** 2 < 20**2).expand(1, 3, 60, 120).to(torch.uint8) * 255
    sizes = {}
    for fit in ("crop", "squash"):
        settings = ClipSettings(1, 30, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fit=fit)
        bright = eval_transform(disc, settings)[0, 0] > 0.5
        sizes[fit] = (int(bright.any(1).sum()), int(bright.any(0).sum()))
    assert sizes == {"crop": (20, 20), "squash": (20, 10)}


def test_frames_are_chosen_by_the_settings():
    times = np.arange(100) / 25
    settings = ClipSettings(4, 32, sampling="fps", fps=5.0)
    assert np.diff(settings.choose(times)).tolist() == [5, 5, 5]
    settings = ClipSettings(4, 32, sampling="dense", stride=3)
    assert settings.choose(times, clip=1, num_clips=2) == [90, 93, 96, 99]
    assert np.diff(settings.choose(times, seeded(0))).tolist() == [3, 3, 3]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (10, 400), (1, 1)])
def test_crop_boxes_keep_to_scale_and_ratio(height, width):
    for seed in range(200):
        top, left, h, w = random_crop_box(height, width, (0.5, 1.0), seeded(seed))
        assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
        if height * width > 1000 and max(height, width) < 100:
            assert 0.48 <= h * w / (height * width) <= 1
            assert 0.7 <= w / h <= 1.4


def test_crops_are_spread_over_the_stated_areas_and_ratios():
    """Uniform area, and uniform logarithm of width : height from 3/4 to 4/3, wherever both fit."""
    boxes = [random_crop_box(3000, 3000, (0.2, 0.5), seeded(seed)) for seed in range(2000)]
    top, left, height, width = np.array(boxes, float).T
    areas, ratios = height * width / 3000**2, np.log(width / height)
    edge = np.log(4 / 3)
    for found, low, high in (
        (areas, 0.2, 0.5),
        (ratios, -edge, edge),
        (top / (3000 - height), 0, 1),
        (left / (3000 - width), 0, 1),
    ):
        share = (np.sort(found) - low) / (high - low)
        assert -0.002 < share[0] < 0.01 and 0.99 < share[-1] < 1.002
        # Largest distance of the cumulative distribution; 0.036 is exceeded once in 100 times.
        assert np.abs(share - (np.arange(2000) + 0.5) / 2000).max() < 0.036
    assert abs(np.corrcoef(areas, ratios)[0, 1]) < 0.06


def test_training_crops_change_the_shape_of_what_is_seen():
    # Every pixel says where it is: the slopes along both axes tell width : height of the box.
    y, x = torch.meshgrid(torch.arange(120), torch.arange(120), indexing="ij")
    place = torch.stack([x, y, x]).to(torch.uint8)[None]
    settings = ClipSettings(1, 24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop_scale=(0.3, 0.5))
    ratios = []
    for seed in range(200):
        pixels = train_transform(place, settings, seeded(seed), [])[0].float()
        across = pixels[0, :, -4] - pixels[0, :, 3]
        down = pixels[1, -4] - pixels[1, 3]
        ratios.append((across.mean() / down.mean()).item())
    assert 0.71 < min(ratios) < 0.80 and 1.25 < max(ratios) < 1.41
    assert sum(ratio > 1 for ratio in ratios) in range(70, 131)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("auto_augment", [None, "rand-m9-n8"])
def test_bytes_are_normalised_later_to_the_same_numbers(antialias, auto_augment):
    """As the same clip is where it is normalised at once, since a box of it may be erased."""
    clip = frames()
    settings = ClipSettings(
        3, 24, (0.5, 0.25, 0.75), flip=True, antialias=antialias, auto_augment=auto_augment
    )
    for seed in range(9):
        pixels = train_transform(clip, settings, seeded(seed), [])
        assert pixels.dtype == torch.uint8
        at_once = replace(settings, random_erasing=1e-9)
        assert torch.equal(
            normalise(pixels, settings), train_transform(clip, at_once, seeded(seed), [])
        )
    values = pixels.double() / 255 - torch.tensor((0.5, 0.25, 0.75)).view(-1, 1, 1)
    expected = (values / torch.tensor(IMAGENET_STD).view(-1, 1, 1)).float()
    torch.testing.assert_close(normalise(pixels, settings), expected, rtol=1e-6, atol=1e-6)
    assert normalise(pixels, settings).is_contiguous()


def test_the_generator_alone_decides():
    clip, settings = frames(), ClipSettings(3, 24)
    same = [train_transform(clip, settings, seeded(5), []) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], train_transform(clip, settings, seeded(6), []))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 0}, "positive"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale"),
        ({"sampling": "middle"}, "sampling 'middle' must be one of"),
        ({"fit": "pad"}, "'pad' one of"),
        ({"sampling": "fps"}, "fps None does not go with"),
        ({"sampling": "fps", "fps": 0.0}, "fps 0.0 does not go with"),
        ({"fps": 2.0}, "fps 2.0 does not go with"),
        ({"stride": 2}, "stride 2 does not go with"),
        ({"sampling": "dense", "stride": 0}, "stride 0 does not go with"),
        ({"sampling": "dense", "stride": 1.5}, "stride 1.5 does not go with"),
        ({"sampling": "fps", "fps": math.inf}, "fps inf does not go with"),
        ({"mean": (123.7, 116.3, 103.5)}, "divide those of values in 0 to 255 by 255"),
        ({"std": (58.4, 57.1, 57.4)}, "divide those of values in 0 to 255 by 255"),
        ({"mean": (0.5,)}, "three numbers each"),
        ({"mean": (0.5,) * 4}, "three numbers each"),
        ({"mean": (math.nan,) * 3}, "three numbers each"),
        ({"std": (0.5, 0.0, 0.5)}, "three numbers each"),
        ({"std": (math.nan,) * 3}, "three numbers each"),
        ({"flip_sided": True}, "set flip too"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        ClipSettings(**{"num_frames": 8, "image_size": 32, **values})


def test_a_box_is_erased_alike_in_all_frames_by_noise_of_each():
    settings = ClipSettings(3, 32, crop_scale=(1.0, 1.0), random_erasing=0.25)
    still = frames(1, 32, 32).expand(3, -1, -1, -1)
    plain = eval_transform(still, settings)
    areas = []
    for seed in range(200):
        changed = (train_transform(still, settings, seeded(seed), []) != plain).all(1)  # (T, H, W)
        assert torch.equal(changed[0], changed[1])
        if changed.any():
            rows, columns = changed[0].any(1).nonzero(), changed[0].any(0).nonzero()
            box = len(rows) * len(columns)
            assert changed[0].sum() == box  # it is one rectangle
            assert rows[-1] - rows[0] == len(rows) - 1
            areas.append(box / 32**2)
    assert 30 < len(areas) < 70 and min(areas) > 0.01 and 0.25 < max(areas) < 0.36
    noise = train_transform(still, settings, seeded(0), [])
    for seed in range(200):
        noise = train_transform(still, settings, seeded(seed), [])
        if not torch.equal(noise[0], plain[0]):
            break
    assert not torch.equal(noise[0], noise[1])
    inside = (noise != plain)[0]
    assert noise[0][inside].std() == pytest.approx(1, abs=0.25)


def test_colours_change_before_the_crop():
    settings = ClipSettings(2, 24, auto_augment="rand-m9-n8")
    clip = frames(2)
    found = train_transform(clip, settings, seeded(1), [])
    generator = seeded(1)
    changed = auto_augment(clip, "rand-m9-n8", IMAGENET_MEAN, generator)
    assert not torch.equal(changed, clip)
    expected = train_transform(changed, replace(settings, auto_augment=None), generator, [])
    assert torch.equal(found, expected)


def test_copies_of_a_sample_are_augmented_apart():
    clip = frames(2)
    first, second = augmented(clip, ClipSettings(2, 24, aug_repeats=2), seeded(1), [])
    assert torch.equal(first, train_transform(clip, ClipSettings(2, 24), seeded(1), []))
    assert not torch.equal(first, second)


def test_the_published_test_resizes_as_opencv_does():
    """Bilinear without antialias: at scale 1/2 each pixel is the mean of four."""
    clip = frames(1, 32, 48)
    settings = ClipSettings(
        1, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fit="crop", interpolation="bilinear",
        antialias=False,
    )  # fmt: skip
    means = clip.float().unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)).round() / 255
    for place, left in [(None, 4), (0, 0), (0.5, 4), (1, 8)]:
        found = eval_transform(clip, settings, place)
        torch.testing.assert_close(found, means[..., left : left + 16])


def test_the_places_of_crops_are_cut_off_and_that_of_the_centre_is_rounded():
    place = torch.arange(23).view(1, 1, 1, 23).expand(1, 3, 16, 23).to(torch.uint8)
    settings = ClipSettings(1, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fit="crop")
    lefts = [
        round(255 * eval_transform(place, settings, p)[0, 0, 0, 0].item()) for p in (None, 0.5)
    ]
    assert lefts == [4, 3]


def test_stills_are_resized_to_more_than_is_cut_out():
    clip = frames(1, 64, 96)
    settings = ClipSettings(1, 28, fit="crop", crop_pct=0.875)
    small = eval_transform(clip, replace(settings, image_size=32, crop_pct=1.0))
    assert torch.equal(eval_transform(clip, settings), small[..., 2:30, 2:30])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_augment": "rand-n2-x"}, "auto_augment 'rand-n2-x' is no policy"),
        ({"random_erasing": 25}, "random_erasing 25 and crop_pct 1.0 are shares"),
        ({"crop_pct": 0.875}, "crop_pct 0.875 is for frames that are cropped; set fit"),
        ({"aug_repeats": 0}, "aug_repeats 0 must be at least 1"),
        ({"interpolation": "nearest"}, "interpolation 'nearest' one of"),
    ],
)
def test_wrong_augmentation_is_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipSettings(4, 32, **settings)
