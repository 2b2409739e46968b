import pytest
import torch

from vmm.drawing import choose, uniform_rows


def test_a_row_is_a_function_of_its_seed_alone():
    rows = uniform_rows([7, 2**63 - 1, 0], 1000)
    assert rows.shape == (3, 1000) and rows.dtype == torch.float32
    assert torch.equal(uniform_rows([0, 7], 40), rows[[2, 0], :40])
    assert rows.min() >= 0 and rows.max() < 1
    assert rows.mean(1).tolist() == pytest.approx([0.5] * 3, abs=0.05)
    assert torch.corrcoef(rows).triu(1).abs().max() < 0.12
    assert uniform_rows([], 5).shape == (0, 5)


def test_columns_are_chosen_in_proportion_and_never_twice():
    weights = torch.tensor([[0.0, 1.0, 2.0, 5.0]]).expand(4000, -1)
    chosen = choose(weights, 2, uniform_rows(range(4000), 4))
    first = chosen[:, 0].bincount(minlength=4) / 4000
    torch.testing.assert_close(first, torch.tensor([0, 1 / 8, 2 / 8, 5 / 8]), atol=0.03, rtol=0)
    # Second after 3 is 2 in two of three cases, and so on.
    second = torch.tensor([1 / 8 * 2 / 7 + 5 / 8 * 2 / 3, 1 / 8 * 5 / 7 + 2 / 8 * 5 / 6])
    found = torch.stack([(chosen[:, 1] == column).float().mean() for column in (2, 3)])
    torch.testing.assert_close(found, second, atol=0.03, rtol=0)
    assert (chosen[:, 0] != chosen[:, 1]).all() and (chosen > 0).all()


def test_the_lowest_number_chooses_nothing_without_weight():
    assert choose(torch.tensor([[0.0, 0.0, 1e-30]]), 1, torch.zeros(1, 3)).item() == 2
