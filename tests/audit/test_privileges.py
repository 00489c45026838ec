"""The service's role can insert and read entries, and cannot change the log in any other way."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Sql

ENTRY = "INSERT INTO audit_log (action, target) VALUES ('segment.created', 'seg_1')"


@pytest.fixture
async def service(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """Connect as the service's role, which has stored one entry."""
    connection = await asyncpg.connect(with_database(servers.service_url, "run"))
    await connection.execute(ENTRY)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'eve'",
        "UPDATE audit_log SET at = at - interval '1 day'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "SELECT * FROM audit_log FOR UPDATE",
        "INSERT INTO audit_log (action, target, at) VALUES ('x', 'y', '2020-01-01Z')",
        "INSERT INTO audit_log (id, action, target) OVERRIDING SYSTEM VALUE VALUES (7, 'x', 'y')",
        "INSERT INTO audit_log (action, target) VALUES ('x', 'y')"
        " ON CONFLICT (id) DO UPDATE SET actor = 'eve'",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TABLE audit_log",
    ],
)
async def test_service_cannot_change_the_log(service: Sql, sql: Sql, statement: str) -> None:
    before = await sql.fetch("SELECT * FROM audit_log")
    assert len(before) == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)
    assert await sql.fetch("SELECT * FROM audit_log") == before


async def test_database_sets_the_time_of_an_entry(service: Sql, sql: Sql) -> None:
    async with service.transaction():
        started = await service.fetchval("SELECT now()")
        await service.execute(ENTRY)
        ended = await service.fetchval("SELECT clock_timestamp()")
    assert started < await sql.fetchval("SELECT max(at) FROM audit_log") < ended


async def test_owner_cannot_truncate_the_log_but_can_delete_old_entries(
    servers: LocalServers, service: Sql, sql: Sql
) -> None:
    owner = await asyncpg.connect(with_database(servers.owner_url, "run"))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="TRUNCATE of audit_log"):
        await owner.execute("TRUNCATE audit_log")
    assert await sql.fetchval("SELECT count(*) FROM audit_log") == 1
    await owner.execute("DELETE FROM audit_log WHERE at < clock_timestamp()")
    assert await sql.fetchval("SELECT count(*) FROM audit_log") == 0
    await owner.close()


async def test_states_must_be_objects(sql: Sql) -> None:
    for column in ("before", "after"):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute(
                f"INSERT INTO audit_log (action, target, {column}) VALUES ('x', 'y', '[]')"
            )
