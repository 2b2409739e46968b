import pytest
import torch
import torch.nn.functional as F

from vmm.ops import attention as module
from vmm.ops.attention import attention


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 40), (300, 300)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_formula(queries, keys, masked):
    q, k, v = (torch.randn(3, 2, n, 8, requires_grad=True) for n in (queries, keys, keys))
    mask = None
    if masked:
        mask = torch.rand(3, 1, 1, keys) < 0.7
        mask[..., 0] = True
    scores = q @ k.transpose(-2, -1) / 8**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = scores.softmax(-1) @ v
    got = attention(q, k, v, mask)
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), (q, k, v)),
        torch.autograd.grad((expected * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("queries", "keys", "expanded", "plain"),
    [
        (15, 15, False, True),
        (256, 256, False, True),
        (256, 257, False, False),
        (100, 400, True, False),  # the queries of both samples, side by side
    ],
)
def test_the_plain_kernel_is_for_short_sequences_on_cpus(
    monkeypatch, queries, keys, expanded, plain
):
    chosen = []

    def record(*args):
        chosen.append(torch.backends.cuda.flash_sdp_enabled())
        return original(*args)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(module.F, "scaled_dot_product_attention", record)
    q, k = torch.randn(2, 1, queries, 4), torch.randn(2, 1, keys, 4)
    if expanded:
        k = k[:1].expand(2, -1, -1, -1)
    attention(q, k, k, None)
    assert chosen == [not plain]


@pytest.mark.parametrize("masked", [False, True])
def test_samples_that_share_one_sample_give_what_copies_of_it_give(masked):
    q = torch.randn(5, 2, 6, 8, requires_grad=True)
    k, v = (torch.randn(1, 2, 9, 8, requires_grad=True) for _ in range(2))
    mask = (torch.rand(1, 1, 1, 9) < 0.7).expand(5, 1, 1, 9) if masked else None
    got = attention(q, k.expand(5, -1, -1, -1), v.expand(5, -1, -1, -1), mask)
    copied = attention(q, k.repeat(5, 1, 1, 1), v.repeat(5, 1, 1, 1), mask)
    torch.testing.assert_close(got, copied)
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), (q, k, v)),
        torch.autograd.grad((copied * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
