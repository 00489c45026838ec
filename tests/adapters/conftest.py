"""A fixture for object keys."""

import itertools

import pytest

_numbers = itertools.count(1)


@pytest.fixture
def key() -> str:
    """Return a key that no file is stored under."""
    return f"tests/{next(_numbers)}.csv"
