"""An empty database, and connections to it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Sql

Connect = Callable[..., Coroutine[Any, Any, Sql]]


@pytest.fixture
async def connect(servers: LocalServers, blank: Settings) -> AsyncIterator[Connect]:
    """Return a function that connects to that database, as a superuser unless a URL is given."""
    opened: list[Sql] = []

    async def connect(url: str = servers.superuser_url) -> Sql:
        name = blank.database_url.rsplit("/", maxsplit=1)[-1]
        opened.append(
            await asyncpg.connect(
                with_database(url, name), server_settings={"lock_timeout": "2s", "jit": "off"}
            )
        )
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()
