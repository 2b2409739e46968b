from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import tensor

from vmm.drawing import uniform_rows
from vmm.masking import (
    MASKS,
    MaskKind,
    MlmDraws,
    Patches,
    apply_mlm_draws,
    draw_mask,
    gather_visible,
    mlm_mask,
)

GOLDEN = Path(__file__).parent / "golden"
B, T, GRID = 3, 4, (14, 10)
N = GRID[0] * GRID[1]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _uniform(rows, seed=0):
    return partial(uniform_rows, range(seed * rows, (seed + 1) * rows))


def _draw(kind, ratio, seed=0):
    attention = torch.rand(B, T, N, generator=_generator(9)) if MASKS[kind].guided else None
    return draw_mask(kind, Patches(B, T, *GRID, attention), ratio, _uniform(B, seed))


def _guided(attention, ratio, seed=0):
    """Guided by the attention to patches in one row."""
    b, t, n = attention.shape
    return draw_mask("attention", Patches(b, t, 1, n, attention), ratio, _uniform(b, seed))


KINDS = [kind for kind, mask in MASKS.items() if mask.hide is not None]


def test_the_words_of_a_recipe_are_those_of_the_table():
    assert get_args(MaskKind) == tuple(MASKS)
    assert draw_mask("none", Patches(B, T, *GRID), 0.5, _uniform(B)) is None


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_shape(kind, ratio):
    dropped = _draw(kind, ratio)
    hidden = {
        "random": int(ratio * T * N),
        "tube": T * int(ratio * N),
        "frame_row": T * int(ratio * GRID[0]) * GRID[1],
        "clip_row": T * int(ratio * GRID[0]) * GRID[1],
        "attention": T * int(ratio * N),
    }[kind]
    assert dropped.shape == (B, 1 + T * N) and dropped.dtype == torch.bool
    assert not dropped[:, 0].any()
    assert dropped.sum(1).tolist() == [hidden] * B


def test_published_numbers_of_visible_patches():
    attention = torch.rand(2, 8, 196)
    assert (~_guided(attention, 0.8)).sum(1).tolist() == [321, 321]
    assert (~_guided(attention[:, :1], 0.5)).sum(1).tolist() == [99, 99]


@pytest.mark.parametrize("kind", KINDS)
def test_structure_of_each_kind(kind):
    frames = _draw(kind, 0.8)[:, 1:].view(B, T, *GRID)
    per_frame = frames.flatten(2).sum(2)
    whole_rows = (frames.all(3) == frames.any(3)).all()
    same_in_all_frames = (frames == frames[:, :1]).all()
    assert whole_rows == (kind in ("frame_row", "clip_row"))
    assert same_in_all_frames == MASKS[kind].same_places == (kind == "tube")
    equal_counts = (per_frame == per_frame[0, 0]).all()
    assert equal_counts == (kind in ("tube", "frame_row", "attention"))


@pytest.mark.parametrize("kind", KINDS)
def test_chance_decides_and_clips_differ(kind):
    assert torch.equal(_draw(kind, 0.8), _draw(kind, 0.8))
    assert not torch.equal(_draw(kind, 0.8), _draw(kind, 0.8, seed=1))
    dropped = _draw(kind, 0.8)
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_hides_the_same_in_another_batch(kind):
    attention = torch.rand(B, T, N)
    all_clips = draw_mask(kind, Patches(B, T, *GRID, attention), 0.6, _uniform(B))
    last = partial(uniform_rows, [B - 1])
    alone = draw_mask(kind, Patches(1, T, *GRID, attention[-1:]), 0.6, last)
    assert torch.equal(alone, all_clips[-1:])


@pytest.mark.parametrize("kind", ["random", "tube", "frame_row", "clip_row"])
def test_every_place_is_hidden_equally_often(kind):
    share = torch.stack([_draw(kind, 0.5, seed) for seed in range(400)]).float().mean((0, 1))
    assert (share[1:] - 0.5).abs().max() < 0.08


def test_attention_decides_who_stays_visible():
    attention = torch.rand(2, 3, 20, generator=_generator()) ** 3
    visible = torch.zeros(2, 60)
    for seed in range(600):
        visible += (~_guided(attention, 0.95, seed))[:, 1:] / 600
    expected = (attention / attention.sum(-1, keepdim=True)).flatten(1)  # one patch is kept
    torch.testing.assert_close(visible, expected, atol=0.06, rtol=0)


def test_attention_that_underflowed_leaves_the_rest_to_chance():
    attention = torch.zeros(2, 3, 20, dtype=torch.bfloat16)
    attention[0, ..., 4] = 1.0  # the other clip: nothing but zeros
    seen = torch.zeros(2, 3, 20)
    for seed in range(200):
        visible = ~_guided(attention, 0.5, seed)[:, 1:].view(2, 3, 20)
        assert visible.sum(-1).eq(10).all()
        seen += visible
    assert seen[0, :, 4].eq(200).all()
    seen[0, :, 4] = 100
    assert (seen - 100).abs().max() < 40


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_that_hides_everything_is_refused(kind, ratio):
    with pytest.raises(ValueError, match="not in"):
        _draw(kind, ratio)


def test_gather_keeps_order_and_gradient():
    x = torch.randn(2, 5, 3, 2, requires_grad=True)
    dropped = tensor([[0, 1, 0, 0, 1], [0, 0, 0, 1, 1]], dtype=torch.bool)
    kept = gather_visible(x, dropped)
    assert torch.equal(kept, torch.stack([x[0, [0, 2, 3]], x[1, [0, 1, 2]]]))
    kept.sum().backward()
    assert torch.equal(x.grad[..., 0, 0], (~dropped).float())


def test_gather_refuses_what_does_not_fit():
    unequal = tensor([[False, True], [False, False]])
    with pytest.raises(ValueError, match="1 to 2 tokens"):
        gather_visible(torch.randn(2, 2, 3), unequal)
    with pytest.raises(ValueError, match="does not fit"):
        gather_visible(torch.randn(2, 3, 3), unequal)


def test_golden_mlm_masking():
    golden = load_file(GOLDEN / "d_text.safetensors")
    draws = MlmDraws(*(golden[f"mlm.draw.{name}"] for name in MlmDraws._fields))
    masked = apply_mlm_draws(golden["input_ids"], draws, pad_id=0, cls_id=101, mask_id=103)
    assert torch.equal(masked.input_ids, golden["mlm.input_ids"])
    assert torch.equal(masked.labels, golden["mlm.labels"])


def test_mlm_rates():
    ids = torch.full((200, 200), 7)
    ids[:, 0], ids[:, -20:], ids[:, -21] = 1, 0, 2  # class, padding, separator
    masked = mlm_mask(
        ids, _uniform(200), pad_id=0, cls_id=1, mask_id=3, vocab_size=1000, probability=0.3
    )
    hidden = masked.labels != -100
    assert torch.equal(masked.labels[hidden], ids[hidden])
    assert torch.equal(masked.input_ids[~hidden], ids[~hidden])
    assert not hidden[:, 0].any() and not hidden[:, -20:].any()
    assert hidden[:, -21].float().mean() == pytest.approx(0.3, abs=0.1)
    new = masked.input_ids[:, 1:-21][hidden[:, 1:-21]]
    assert hidden[:, 1:-21].float().mean() == pytest.approx(0.3, abs=0.02)
    assert (new == 3).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (new == 7).float().mean() == pytest.approx(0.1, abs=0.02)
    random = new[(new != 3) & (new != 7)]
    assert random.min() < 20 and random.max() > 980


def test_words_are_hidden_alike_behind_other_padding_and_in_another_batch():
    ids = torch.randint(10, 99, (4, 30))
    padded = torch.cat([ids, torch.zeros(4, 9, dtype=torch.int64)], 1)
    kinds = {"pad_id": 0, "cls_id": 1, "mask_id": 3, "vocab_size": 99}
    masked = mlm_mask(ids, _uniform(4), **kinds)
    wider = mlm_mask(padded[2:], partial(uniform_rows, [2, 3]), **kinds)
    assert torch.equal(masked.input_ids[2:], wider.input_ids[:, :30])
    assert torch.equal(masked.labels[2:], wider.labels[:, :30])
    assert not torch.equal(masked.input_ids, mlm_mask(ids, _uniform(4, 1), **kinds).input_ids)
