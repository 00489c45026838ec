"""Chunks of imports wait for short transactions, and for erasures of keys before any lock."""

import asyncio

import asyncpg
import pytest

from segmentql import metrics
from segmentql.adapters.sessions import WriteSession
from segmentql.imports.actors import advance_import
from segmentql.imports.erasure import erase_keys
from segmentql.local import LocalServers, with_database
from tests.conftest import Api, Sql, until
from tests.imports.lists import APPLY, Imports, counts
from tests.operations import create_user, delete_user, make_segments

WAITING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"
KEY = "alice@example.com"


@pytest.mark.parametrize("mode", ["ADD", "REMOVE", "REPLACE"])
async def test_chunk_waits_for_a_transaction_that_holds_the_row_of_the_import(
    *, api: Api, imports: Imports, sql: Sql, servers: LocalServers, mode: str
) -> None:
    await make_segments(api, "a")
    validated = await imports.run(b"1\n2\n", mode=mode, dryRun=True)
    await imports.send(APPLY, id=validated["id"])
    other = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    async with other.transaction():
        await other.execute("SELECT FROM imports FOR UPDATE")
        working = asyncio.create_task(advance_import(imports.context, 1))
        await until(lambda: _is_waiting_or_done(sql, working))
    await working
    await other.close()
    finished = await imports.read(validated["id"])
    expected = {"UNKNOWN_USER": 2} if mode == "REMOVE" else {"JOINED": 2}
    assert (finished["status"], counts(finished)) == ("COMPLETED", expected)


async def _is_waiting_or_done(sql: Sql, task: asyncio.Task[None]) -> bool:
    return task.done() or bool(await sql.fetchval(WAITING))


async def test_second_worker_leaves_a_chunk_to_the_first_one(
    api: Api, imports: Imports, sql: Sql, servers: LocalServers
) -> None:
    await make_segments(api, "a")
    validated = await imports.run(b"1\n2\n", dryRun=True)
    await imports.send(APPLY, id=validated["id"])
    other = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    async with other.transaction():
        await other.execute("LOCK TABLE memberships")
        first = asyncio.create_task(advance_import(imports.context, 1))
        await until(lambda: _is_waiting_or_done(sql, first))
        await advance_import(imports.context, 1)
        assert not first.done()
    await first
    await other.close()
    finished = await imports.read(validated["id"])
    assert (finished["status"], counts(finished)) == ("COMPLETED", {"JOINED": 2})


async def test_erasure_of_a_key_and_a_chunk_with_its_user_do_not_deadlock(
    api: Api, imports: Imports, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_segments(api, "a")
    await create_user(api, id="1", key=KEY)
    validated = await imports.run(f"{KEY}\nbob\n".encode(), identity="KEY", dryRun=True)
    await imports.send(APPLY, id=validated["id"])
    has_deleted, may_erase = asyncio.Event(), asyncio.Event()

    async def erase_later(session: WriteSession, user_keys: list[str]) -> None:
        has_deleted.set()
        await may_erase.wait()
        await erase_keys(session, user_keys)

    monkeypatch.setattr("segmentql.exports.user_deletion.erase_keys", erase_later)
    retries = _transaction_retries()
    erasing = asyncio.create_task(delete_user(api, KEY, eraseKey=True))
    await has_deleted.wait()
    working = asyncio.create_task(advance_import(imports.context, 1))
    await until(lambda: sql.fetchval(WAITING))
    may_erase.set()
    assert (await erasing)["errors"] == []
    await working
    assert _transaction_retries() == retries
    finished = await imports.read(validated["id"])
    assert (finished["status"], counts(finished)) == (
        "COMPLETED",
        {"JOINED": 1, "UNKNOWN_USER": 1},
    )


def _transaction_retries() -> float:
    value: float = metrics.TRANSACTION_RETRIES._value.get()
    return value
