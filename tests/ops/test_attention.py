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
    ("queries", "keys", "shared", "plain"),
    [
        (15, 15, False, True),
        (256, 256, False, True),
        (256, 257, False, False),
        (100, 400, True, False),  # the queries of both samples, side by side
    ],
)
def test_the_plain_kernel_is_for_short_sequences_on_cpus(monkeypatch, queries, keys, shared, plain):
    chosen = []

    def record(*args):
        chosen.append(torch.backends.cuda.flash_sdp_enabled())
        return original(*args)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(module.F, "scaled_dot_product_attention", record)
    q, k = torch.randn(2, 1, queries, 4), torch.randn(1 if shared else 2, 1, keys, 4)
    attention(q, k, k, None)
    assert chosen == [not plain]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("samples", "turns"), [(1, 5), (3, 2)])
def test_samples_that_share_others_give_what_copies_of_those_give(samples, turns, masked):
    heads = torch.randn(samples * turns, 6, 2, 8, requires_grad=True)  # as projections lie
    q = heads.transpose(1, 2)
    k, v = (torch.randn(samples, 2, 9, 8, requires_grad=True) for _ in range(2))
    mask = None
    if masked:
        mask = torch.rand(samples, 1, 1, 9) < 0.7
        mask[..., 0] = True
    copies = (turns, 1, 1, 1)
    got = attention(q, k, v, mask)
    again = None if mask is None else mask.repeat(copies)
    copied = attention(q, k.repeat(copies), v.repeat(copies), again)
    torch.testing.assert_close(got, copied)
    weight = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), (q, k, v)),
        torch.autograd.grad((copied * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_samples_that_cannot_share_are_refused():
    with pytest.raises(ValueError, match="5 samples cannot share 2 evenly"):
        attention(torch.randn(5, 1, 3, 4), *torch.randn(2, 2, 1, 3, 4), None)
