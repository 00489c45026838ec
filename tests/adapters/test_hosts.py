"""A URL with several hosts: a host that cannot be used does not prevent the use of the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import make_engine
from segmentql.database_url import check_database_url
from segmentql.settings import Settings
from tests.pooler import NEEDS_DIRECT_SESSION

SECONDS = 6
"""The timeout of a connection. Each of the two hosts has half of it."""


def url_of(settings: Settings, first_port: int, *, password: str | None = None) -> str:
    """Return the URL of the database with another first host."""
    url = make_url(settings.database_url)
    return check_database_url(
        f"postgresql://{url.username}:{password or url.password}@127.0.0.1:{first_port},"
        f"{url.host}:{url.port}/{url.database}?target_session_attrs=read-write"
    )


async def connect(url: str) -> None:
    engine = make_engine(url, name="tests", server_settings={}, connect_seconds=SECONDS)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await engine.dispose()


@asynccontextmanager
async def hanging_server() -> AsyncIterator[tuple[int, list[None]]]:
    """Run a server that accepts connections and never responds; yield its port and connections."""
    accepted: list[None] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(None)
        await reader.read()
        await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], accepted


async def test_host_that_refuses_connections_is_skipped(settings: Settings) -> None:
    await connect(url_of(settings, 1))


@pytest.mark.slow  # it waits for the time limit of the first host
async def test_host_that_hangs_is_skipped_and_tried_last_from_then_on(settings: Settings) -> None:
    async with hanging_server() as (port, accepted):
        url = url_of(settings, port)
        await connect(url)
        assert len(accepted) == 1
        await connect(url)
        assert len(accepted) == 1


@NEEDS_DIRECT_SESSION
async def test_wrong_password_is_reported_and_not_hidden_by_the_next_host(
    settings: Settings,
) -> None:
    with pytest.raises(DBAPIError, match="password authentication failed"):
        await connect(url_of(settings, 1, password="wrong"))
