import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from vmm.losses.contrastive import Pairs, contrastive_loss
from vmm.ops.similarity import frame_similarity


def _inputs(b: int = 6, p: int = 3, e: int = 8, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    video = torch.randn(b, p, e, generator=g, requires_grad=True)
    text = torch.randn(b, e, generator=g, requires_grad=True)
    return video, text


def _cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


def test_similarity_is_the_mean_of_cosines_not_the_cosine_of_the_mean():
    video, text = _inputs()
    video = video * torch.linspace(0.1, 10, 3)[:, None]  # frames of very different length
    similarity = frame_similarity(video, text)
    for i in range(6):
        for j in range(6):
            expected = torch.stack([_cosine(frame, text[j]) for frame in video[i]]).mean()
            torch.testing.assert_close(similarity[i, j], expected)


def test_similarity_is_float32_under_autocast():
    video, text = _inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        similarity = frame_similarity(video, text)
    assert similarity.dtype == torch.float32
    torch.testing.assert_close(similarity, frame_similarity(video, text), rtol=0, atol=0)


@pytest.mark.parametrize("idx", [[0, 1, 2, 3, 4, 5], [7, 7, 1, 2, 1, 7], [3] * 6])
def test_loss_equals_the_written_out_sum(idx):
    video, text = _inputs()
    temperature = tensor(0.07)
    out = contrastive_loss(video, text, temperature, tensor(idx))
    s = frame_similarity(video, text) / temperature
    expected = 0.0
    for i in range(6):
        positives = [j for j in range(6) if idx[j] == idx[i]]
        for scores in (s[i], s[:, i]):
            log_p = scores - scores.exp().sum().log()
            expected = expected - sum(log_p[j] for j in positives) / len(positives) / 12
    torch.testing.assert_close(out.loss, expected)


def test_accuracies_count_any_positive_and_tell_the_directions_apart():
    # Both texts are nearest to video 0, every video is nearest to its own text.
    video = tensor([[1.0, 0.0], [0.6, 0.8]])[:, None]
    text = tensor([[1.0, 0.0], [0.9, 0.4]])
    out = contrastive_loss(video, text, tensor(0.1), tensor([0, 1]))
    assert (out.t2v_accuracy.item(), out.v2t_accuracy.item()) == (0.5, 1.0)
    out = contrastive_loss(video, text, tensor(0.1), tensor([4, 4]))
    assert (out.t2v_accuracy.item(), out.v2t_accuracy.item()) == (1.0, 1.0)


def test_gradient_reaches_both_sides_and_the_temperature():
    video, text = _inputs()
    temperature = torch.nn.Parameter(tensor(0.07))
    contrastive_loss(video, text, temperature, torch.arange(6)).loss.backward()
    for x in (video, text, temperature):
        assert x.grad is not None and x.grad.abs().sum() > 0


def test_dividing_by_the_temperature_sharpens():
    video = torch.eye(4)[:, None]
    losses = [
        contrastive_loss(video, torch.eye(4), tensor(t), torch.arange(4)).loss for t in (0.5, 0.05)
    ]
    assert losses[1] < losses[0] * 1e-3


KINDS = {
    "softmax": lambda bias: Pairs(),
    "smoothed": lambda bias: Pairs(label_smoothing=0.2),
    "sigmoid": lambda bias: Pairs(bias),
}


def written_out(kind, video, text, temperature, bias, idx):
    """The loss pair by pair."""
    s, n = frame_similarity(video, text) / temperature, len(idx)
    total = 0.0
    for i in range(n):
        positives = [j for j in range(n) if idx[j] == idx[i]]
        if kind == "sigmoid":
            for j in range(n):
                sign = 1.0 if j in positives else -1.0
                total = total + torch.log1p(torch.exp(-sign * (s[i, j] + bias))).sum() / n
            continue
        spread = 0.2 if kind == "smoothed" else 0.0
        for scores in (s[i], s[:, i]):
            log_p = scores - scores.exp().sum().log()
            right = sum(log_p[j] for j in positives) / len(positives)
            total = total - ((1 - spread) * right + spread * log_p.mean()) / (2 * n)
    return total


def leaves_of(n):
    g = torch.Generator().manual_seed(0)
    shapes = {"video": (n, 3, 8), "text": (n, 8)}
    made = {k: torch.randn(*size, generator=g, dtype=torch.float64) for k, size in shapes.items()}
    made |= {"temperature": tensor([0.3], dtype=torch.float64)}
    made |= {"bias": tensor([-1.5], dtype=torch.float64)}
    return {name: x.requires_grad_() for name, x in made.items()}


def gradients(loss, leaves):
    found = torch.autograd.grad(loss.sum(), [*leaves.values()], allow_unused=True)
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("rows", [None, 2, 9])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("idx", [[0, 1, 2, 3, 4], [7, 7, 1, 2, 7], [3] * 5])
def test_losses_and_gradients_equal_the_sum_over_pairs(kind, idx, rows):
    leaves = leaves_of(5)
    video, text, temperature, bias = leaves.values()
    expected = written_out(kind, video, text, temperature, bias, idx)
    pairs = KINDS[kind](bias)
    got = contrastive_loss(video, text, temperature, tensor(idx), rows=rows, pairs=pairs).loss
    torch.testing.assert_close(got.sum(), expected.sum(), rtol=1e-12, atol=1e-12)
    for one, other in zip(
        gradients(got, leaves).values(), gradients(expected, leaves).values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_sigmoid_is_that_of_open_clip():
    from open_clip.loss import SigLipLoss

    leaves = leaves_of(5)
    video, text, temperature, bias = leaves.values()
    video = F.normalize(video[:, :1], dim=-1)
    theirs = SigLipLoss()(video[:, 0], F.normalize(text, dim=-1), 1 / temperature, bias)
    ours = contrastive_loss(video, text, temperature, torch.arange(5), pairs=Pairs(bias)).loss
    torch.testing.assert_close(ours.reshape(()), theirs.reshape(()), rtol=1e-12, atol=1e-12)
