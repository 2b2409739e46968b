import pytest
import torch

from vmm.data.auto_augment import (
    AutoAugment,
    RandAugment,
    Step,
    _amount,
    apply_steps,
    auto_augment,
    parse_policy,
)

MEAN = (0.485, 0.456, 0.406)
PUBLISHED = "rand-m7-n4-mstd0.5-inc1"
INCREASING = {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"}


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 6, 8, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (36, 48), mode="bilinear").to(torch.uint8)
    return fine


def name_in_timm(name, increasing):
    name += "Rel" * ("Translate" in name)
    return name + ("Increasing" if increasing and name in INCREASING else "")


@pytest.mark.parametrize("increasing", [True, False])
def test_every_operation_is_that_of_timm(frames, increasing, monkeypatch):
    timm = pytest.importorskip("timm.data.auto_augment")
    from PIL import Image

    from vmm.data.auto_augment import _OPERATIONS

    hparams = {"translate_pct": 0.45}
    fill = tuple(min(255, round(255 * value)) for value in MEAN)
    checked = 0
    for name in _OPERATIONS:
        for magnitude, sign in [(0, 1), (3.7, 1), (7, -1), (10, 1)]:
            monkeypatch.setattr(timm.random, "random", lambda s=sign: 0.9 if s < 0 else 0.1)
            theirs = name_in_timm(name, increasing)
            to_arguments = timm.LEVEL_TO_ARG[theirs]
            arguments = to_arguments(magnitude, hparams) if to_arguments else ()
            picture = Image.fromarray(frames[0].permute(1, 2, 0).contiguous().numpy())
            kwargs = {"fillcolor": fill, "resample": Image.BICUBIC}
            expected = timm.NAME_TO_OP[theirs](picture, *arguments, **kwargs)
            step = Step(name, _amount(name, magnitude, sign, increasing))
            found = apply_steps(frames[:1], [step], MEAN)[0].permute(1, 2, 0)
            assert found.contiguous().numpy().tobytes() == expected.tobytes(), (name, magnitude)
            checked += 1
    assert checked == 60


def test_the_policies_are_those_of_timm():
    timm = pytest.importorskip("timm.data.auto_augment")
    expected = [
        [(op.name.replace("Rel", ""), op.prob, op.magnitude) for op in pair]
        for pair in timm.auto_augment_policy_v0({})
    ]
    assert AutoAugment().pairs == expected
    theirs = timm.rand_augment_transform(PUBLISHED, {"img_mean": (1, 2, 3)})
    ours = parse_policy(PUBLISHED)
    assert ours == RandAugment(7.0, 4, 0.5, True)
    assert theirs.num_layers == 4 and len(theirs.ops) == 15
    first = theirs.ops[0]
    assert (first.prob, first.magnitude, first.magnitude_std) == (0.5, 7, 0.5)


def test_a_clip_is_changed_alike_in_all_frames(frames):
    still = frames[:1].repeat(3, 1, 1, 1)
    seen = set()
    for seed in range(12):
        changed = auto_augment(still, PUBLISHED, MEAN, torch.Generator().manual_seed(seed))
        assert changed.shape == still.shape and changed.dtype == torch.uint8
        assert torch.equal(changed[0], changed[1]) and torch.equal(changed[0], changed[2])
        again = auto_augment(still, PUBLISHED, MEAN, torch.Generator().manual_seed(seed))
        assert torch.equal(changed, again)
        seen.add(changed.numpy().tobytes())
    assert len(seen) >= 10


def test_half_of_the_operations_are_done_each_as_often():
    generator = torch.Generator().manual_seed(0)
    steps = [step for _ in range(1500) for step in parse_policy(PUBLISHED).draw(generator)]
    assert len(steps) == pytest.approx(3000, rel=0.06)
    counts = {name: sum(step.name == name for step in steps) for name in {s.name for s in steps}}
    assert len(counts) == 15 and min(counts.values()) > 140 and max(counts.values()) < 270
    rotations = torch.tensor([step.amount for step in steps if step.name == "Rotate"])
    assert (rotations > 0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert rotations.abs().mean() == pytest.approx(21, abs=0.5) and rotations.abs().std() > 1


@pytest.mark.parametrize(
    "words", ["", "v1", "rand-m11", "rand-n0", "rand-n1.5", "rand-m7-m8", "rand-w0", "augmix-m3"]
)
def test_an_unknown_policy_is_one_sentence(words):
    with pytest.raises(ValueError, match=f"auto_augment '{words}' is no policy.*v0, or for ex"):
        parse_policy(words)
