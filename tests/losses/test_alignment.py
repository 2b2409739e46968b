import pytest
import torch
import torch.nn.functional as F

from vmm.losses.alignment import alignment_loss


def _unit(x):
    return x / x.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_loss_equals_the_written_out_mean(kind):
    g = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 5, 8, generator=g) * 7
    teacher = torch.randn(2, 3, 5, 8, generator=g)
    s, t = _unit(student), _unit(teacher)
    expected = {
        "l2": (s - t).square().sum(-1).mean(),
        "mse": (s - t).square().mean(),
        "smooth_l1": F.smooth_l1_loss(s, t),
    }[kind]
    torch.testing.assert_close(alignment_loss(student, teacher, kind), expected)


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_every_student_layer_has_its_teacher_layer(kind):
    student, teacher = torch.randn(3, 2, 5, 8), torch.randn(3, 2, 5, 8)
    pairs = zip(student, teacher, strict=True)
    each = torch.stack([alignment_loss(s[None], t[None], kind) for s, t in pairs]).mean()
    torch.testing.assert_close(alignment_loss(student, teacher, kind), each)
    other = alignment_loss(student, teacher.flip(0), kind)
    assert not torch.isclose(other, each, rtol=1e-3)


def test_only_the_direction_counts():
    teacher = torch.randn(1, 2, 5, 8)
    assert alignment_loss(teacher * 3, teacher).abs() < 1e-6
    torch.testing.assert_close(alignment_loss(-teacher, teacher), torch.tensor(4.0))


def test_float32_under_autocast():
    student, teacher = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = alignment_loss(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, alignment_loss(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape", [(1, 2, 4, 8), (1, 2, 5, 7), (1, 3, 5, 8), (2, 2, 5, 8), (2, 5, 8)]
)
def test_tokens_that_do_not_correspond_are_refused(shape):
    with pytest.raises(ValueError, match="do not correspond"):
        alignment_loss(torch.randn(1, 2, 5, 8), torch.randn(shape))
