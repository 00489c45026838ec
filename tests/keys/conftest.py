"""The application with required API keys."""

from collections.abc import AsyncIterator

import pytest

from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving


@pytest.fixture(scope="session")
async def auth_settings(settings: Settings) -> Settings:
    """Return the settings of a service that requires API keys."""
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture(scope="session")
async def session_auth_api(auth_settings: Settings) -> AsyncIterator[Api]:
    async with serving(auth_settings) as client_api:
        yield client_api


@pytest.fixture
async def auth_api(session_auth_api: Api, sql: Sql) -> Api:
    """Return the application that requires API keys, with empty tables."""
    return session_auth_api
