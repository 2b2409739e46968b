import numpy as np
import pytest

from vmm.shards.demo.shapes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    TWIN_MOTIONS,
    Scene,
    render,
    twin_pairs,
)


def test_scenes_are_all_different_and_twins_differ_in_motion_only():
    pairs = twin_pairs()
    scenes = [scene for pair in pairs for scene in pair]
    total = len(SHAPES) * len(COLOURS) * len(SIZES) * len(TEXTURES) * len(BACKGROUNDS)
    assert len(scenes) == len({scene.caption for scene in scenes}) == total * len(MOTIONS)
    for a, b in pairs:
        assert a.twin == b and b.twin == a and a.still_caption == b.still_caption
        assert (a.motion, b.motion) in TWIN_MOTIONS
    scene = Scene("circle", "red", "small", "striped", "grey", "left")
    assert scene.caption == "a small striped red circle moves to the left on a grey background"
    assert scene.still_caption == "a small striped red circle on a grey background"


@pytest.mark.parametrize("motion", [pair[0] for pair in TWIN_MOTIONS])
@pytest.mark.parametrize("shape", SHAPES)
def test_rendered_twins_are_each_other_backwards(shape, motion):
    scene = Scene(shape, "red", "large", TEXTURES[-1], BACKGROUNDS[-1], motion)
    forward, backward = (render(s, 9, 64, np.random.default_rng(5)) for s in (scene, scene.twin))
    assert np.array_equal(forward, backward[::-1]) and not np.array_equal(forward, backward)


def moment(frames, background):
    """(x, y, mass) of the difference to an empty background, per frame."""
    weight = np.abs(frames.astype(float) - background).mean(-1)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    mass = weight.sum((1, 2))
    return (weight * x).sum((1, 2)) / mass, (weight * y).sum((1, 2)) / mass, mass


@pytest.mark.parametrize(
    ("motion", "quantity", "sign"),
    [
        ("left", 0, -1),
        ("right", 0, 1),
        ("up", 1, -1),
        ("down", 1, 1),
        ("grow", 2, 1),
        ("shrink", 2, -1),
        ("appear", 2, 1),
        ("vanish", 2, -1),
    ],
)
def test_clips_show_what_their_captions_say(motion, quantity, sign):
    scene = Scene(SHAPES[0], "red", "small", "plain", "black", motion)
    frames = render(scene, 12, 64, np.random.default_rng(0))
    steps = np.diff(moment(frames, 15)[quantity])
    assert (sign * steps).min() > (0.3 if quantity < 2 else 5)


def test_colours_sizes_and_textures_are_visible():
    def picture(**changes):
        look = {"shape": SHAPES[0], "colour": "red", "size": "large", "texture": "plain"}
        scene = Scene(**(look | changes), background="black", motion="left")
        return render(scene, 3, 64, np.random.default_rng(1))[1].astype(float)

    for name, values in (
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("texture", TEXTURES),
    ):
        pictures = [picture(**{name: value}) for value in values]
        for i, one in enumerate(pictures):
            for other in pictures[:i]:
                assert (np.abs(one - other).max(-1) > 40).sum() > 15, name
    assert np.allclose(picture()[28:36, 28:36].mean((0, 1)), COLOURS["red"], atol=15)
