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
def test_one_teacher_layer_serves_every_student_layer(kind):
    student, teacher = torch.randn(3, 2, 5, 8), torch.randn(2, 5, 8)
    each = torch.stack([alignment_loss(s[None], teacher, kind) for s in student]).mean()
    torch.testing.assert_close(alignment_loss(student, teacher, kind), each)


def test_only_the_direction_counts():
    teacher = torch.randn(2, 5, 8)
    assert alignment_loss(teacher[None] * 3, teacher).abs() < 1e-6
    torch.testing.assert_close(alignment_loss(-teacher[None], teacher), torch.tensor(4.0))


def test_float32_under_autocast():
    student, teacher = torch.randn(1, 2, 5, 8), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = alignment_loss(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, alignment_loss(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 4, 8), (2, 5, 7), (3, 5, 8)])
def test_tokens_that_do_not_correspond_are_refused(shape):
    with pytest.raises(ValueError, match="do not correspond"):
        alignment_loss(torch.randn(1, 2, 5, 8), torch.randn(shape))
