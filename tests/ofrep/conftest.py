"""A service that names users by their keys."""

from collections.abc import AsyncIterator

import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving


@pytest.fixture
async def key_api(settings: Settings, sql: Sql) -> AsyncIterator[Api]:
    """Run a service with SEGMENTQL_OFREP_TARGETING_KEY=key."""
    async with serving(settings.model_copy(update={"ofrep_targeting_key": "key"})) as api:
        yield api
