"""A service that executes only stored documents."""

from collections.abc import AsyncIterator

import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving


@pytest.fixture(scope="session")
async def trusted_settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"documents": "trusted", "graphiql": "off"})


@pytest.fixture(scope="session")
async def session_trusted(trusted_settings: Settings) -> AsyncIterator[Api]:
    async with serving(trusted_settings) as api:
        yield api


@pytest.fixture
async def trusted(session_trusted: Api, sql: Sql) -> Api:
    """Return the service, with empty tables. Its caches of documents are kept between tests."""
    return session_trusted
