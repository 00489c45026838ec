"""A server that cannot be used is reported as unavailable until it can be used again."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import OutcomeUnknown, Unavailable, Unresponsive
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.adapters.database_helpers import opened, ping, store
from tests.conftest import Sql, until
from tests.pooler import IS_POOLED, NEEDS_DIRECT_SESSION


async def test_read_only_server_is_unavailable(sql: Sql, database: Database) -> None:
    """A standby, for instance, that a failed-over connection still reaches."""

    async def work(session: WriteSession) -> None:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        await session.execute(text("UPDATE users SET created_at = now()"))

    with pytest.raises(Unavailable):
        await database.transaction(work)


async def test_closed_port_is_unavailable(sql: Sql, settings: Settings) -> None:
    nowhere = make_url(settings.database_url).set(port=1)
    database = opened(settings, database_url=nowhere.render_as_string(hide_password=False))
    await assert_unavailable(database)
    await database.dispose()


@NEEDS_DIRECT_SESSION
async def test_server_that_rejects_connections_is_unavailable(sql: Sql, settings: Settings) -> None:
    database = opened(settings)
    await sql.execute("ALTER ROLE segmentql_service CONNECTION LIMIT 0")
    try:
        await assert_unavailable(database)
    finally:
        await sql.execute("ALTER ROLE segmentql_service CONNECTION LIMIT -1")
    assert await database.read_one(ping) == 42
    await database.dispose()


async def test_wrong_password_is_unavailable(sql: Sql, settings: Settings) -> None:
    wrong_url = make_url(settings.database_url).set(password="wrong")
    database = opened(settings, database_url=wrong_url.render_as_string(hide_password=False))
    await assert_unavailable(database)
    await database.dispose()


async def assert_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.read() as session:
            await ping(session)
    with pytest.raises(Unavailable):
        await database.read_one(ping)
    with pytest.raises(Unavailable) as raised:
        await database.transaction(lambda session: store(session, 7))
    assert not isinstance(raised.value, OutcomeUnknown)


async def test_stopped_server_is_unavailable_until_it_restarts(
    servers: LocalServers, settings: Settings, sql: Sql
) -> None:
    database = opened(settings)
    assert await database.read_one(ping) == 42
    faults: list[type[Exception]] = []

    async def answers() -> bool:
        try:
            return await database.read_one(ping) == 42
        except Exception as error:  # noqa: BLE001 - the test records every exception
            faults.append(type(error))
            return False

    # This includes the shutdown and the start, when it accepts connections and then rejects them.
    stopping = asyncio.create_task(servers.postgres.stop())
    try:
        while not stopping.done():
            await answers()
            await asyncio.sleep(0)
        await assert_unavailable(database)
    finally:
        await stopping
        starting = asyncio.create_task(servers.postgres.start())
        await until(answers)
        await starting
    assert faults
    # A pooler lets requests wait while the server is down.
    assert set(faults) <= ({Unavailable, Unresponsive} if IS_POOLED else {Unavailable})
    await database.transaction(lambda session: store(session, 7))
    await database.dispose()
