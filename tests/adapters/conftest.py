"""Keys for files."""

import itertools

import pytest

_numbers = itertools.count(1)


@pytest.fixture
def key() -> str:
    """A key that nothing is stored under."""
    return f"tests/{next(_numbers)}.csv"
