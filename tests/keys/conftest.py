"""The application as it asks for keys."""

from collections.abc import AsyncIterator

import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving


@pytest.fixture(scope="session")
async def guarded(settings: Settings) -> Settings:
    """The settings of a service that asks for keys."""
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture(scope="session")
async def served_with_keys(guarded: Settings) -> AsyncIterator[Api]:
    async with serving(guarded) as asking:
        yield asking


@pytest.fixture
async def keyed(served_with_keys: Api, sql: Sql) -> Api:
    """The application that asks for keys, with empty tables."""
    return served_with_keys
