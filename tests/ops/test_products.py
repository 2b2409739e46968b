"""Products of a search: right, of the two vectors alone, and nothing beyond a table is read."""

import numpy as np
import pytest
import torch

from tests.global_state import STATES
from vmm.ops import products as module
from vmm.ops.kernels.cpu_kernel import packed_address
from vmm.ops.products import products

WIDTHS = [1, 16, 24, 100, 512, 1000]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 64)


def numbers(rows, width):
    generator = torch.Generator().manual_seed(rows + width)
    return torch.randn(rows, width, generator=generator, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 63, 64, 65, 700])
def test_products_are_those_of_float64(rows, width, small_pieces):
    table, vector = numbers(rows, width), numbers(1, width)[0]
    beside = torch.full((rows + 2, width), torch.nan)  # what lies around is not read
    beside[1:-1] = table
    actual = products([beside[1:-1]], vector)
    assert actual.dtype == torch.float32 and actual.shape == (rows,)
    assert np.allclose(actual, table.double() @ vector.double(), atol=1e-4)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_depends_on_the_two_vectors_alone(width, threads, small_pieces, monkeypatch):
    """Not on where a row is, what is beside it, or how many threads there are."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    table, vector = numbers(700, width), numbers(1, width)[0]
    alone = torch.cat([products([row[None]], vector) for row in table])
    assert torch.equal(products([table], vector), alone)
    order = torch.randperm(700)
    assert torch.equal(products([table[order]], vector), alone[order])
    parts = [table[:3], table[3:3], table[3:100], table[100:107], table[107:]]
    assert torch.equal(products(parts, vector), alone)
    assert torch.equal(products(parts, -vector), -alone)


@pytest.mark.parametrize("rows", range(1, 10))
def test_nothing_is_written_beyond_the_last_product(rows, monkeypatch):
    room = torch.full((rows + 4,), 7.0)

    def address(name, x):
        return packed_address(name, room if name == "products" else x)

    monkeypatch.setattr(module, "packed_address", address)
    table, vector = numbers(rows, 20), numbers(1, 20)[0]
    products([table], vector)
    assert torch.allclose(room[:rows], table @ vector, atol=1e-4)
    assert room[rows:].tolist() == [7.0] * 4


def test_nothing_to_compare():
    assert products([], numbers(1, 5)[0]).shape == (0,)
    assert products([numbers(0, 5)], numbers(1, 5)[0]).shape == (0,)


@pytest.mark.parametrize("state", STATES)
def test_settings_of_the_process_change_nothing(state, small_pieces):
    table, vector = numbers(300, 100), numbers(1, 100)[0]
    expected = products([table], vector)
    with STATES[state]():
        actual = products([table], vector)
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)


def test_nan_and_infinity_are_not_hidden():
    table = torch.zeros(9, 20)
    table[3, 19], table[4, 0] = torch.nan, torch.inf
    found = products([table], torch.ones(20))
    assert found.isfinite().tolist() == [True] * 3 + [False] * 2 + [True] * 4


def test_what_the_kernel_cannot_read_is_refused():
    table, vector = numbers(8, 20), numbers(1, 20)[0]
    with pytest.raises(ValueError, match=r"rows of \(8, 20\) have no product with 19 numbers"):
        products([table], vector[:19])
    with pytest.raises(ValueError, match=r"want rows as torch\.float32"):
        products([table.double()], vector)
    with pytest.raises(ValueError, match=r"want the vector as torch\.float32"):
        products([table], vector.double())
    with pytest.raises(ValueError, match="want rows without gaps"):
        products([table[:, ::2]], vector[:10])
