import pytest

from tests.search.test_query import random_index
from vmm.search.query import Searcher


@pytest.fixture
def filled(new_index):
    """An index of random directions in two parts, some of them outdated."""
    return random_index(new_index)[0]


@pytest.fixture
def searcher(filled, encoder):
    return Searcher(filled, encoder)
