"""Hints about changes of history reach other processes, and their loss delays nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import Redis
from sqlalchemy import text

from segmentql.adapters.change_hints import CHANNEL, ChangeHints
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.settings import Settings
from tests.conftest import Sql, until
from tests.timeline import make_segment, make_users

INSERT = text("""
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT 1, :segment_id, at, at, 'MANUAL' FROM clock_timestamp() AS at
""")


@pytest.fixture
async def hints(settings: Settings) -> AsyncIterator[ChangeHints]:
    opened = ChangeHints(settings.redis_url)
    yield opened
    await asyncio.to_thread(opened.close)


async def has_listeners(settings: Settings, count: int) -> bool:
    with Redis.from_url(settings.redis_url) as redis:
        found: int = redis.pubsub_numsub(CHANNEL)[0][1]
        return found == count


async def test_hint_reaches_a_listener_and_hints_are_combined(
    settings: Settings, hints: ChangeHints
) -> None:
    received = 0

    def receive() -> None:
        nonlocal received
        received += 1

    hints.listen(receive)
    await until(lambda: has_listeners(settings, 1))
    other = ChangeHints(settings.redis_url)
    for _ in range(100):
        other.publish()

    async def is_received() -> bool:
        return received > 0

    await until(is_received)
    await asyncio.sleep(0.1)
    assert received == 1
    await asyncio.to_thread(other.close)
    hints.stop_listening()
    await until(lambda: has_listeners(settings, 0))


async def test_listener_starts_again_after_it_was_stopped(
    settings: Settings, hints: ChangeHints
) -> None:
    received = asyncio.Event()
    for _ in range(3):
        hints.listen(received.set)
        hints.stop_listening()
    hints.listen(received.set)

    async def is_received() -> bool:
        hints.publish()
        return received.is_set()

    await until(is_received)
    assert await has_listeners(settings, 1)


async def test_without_redis_nothing_fails(settings: Settings) -> None:
    absent = ChangeHints("redis://127.0.0.1:1/0")
    absent.listen(lambda: None)
    for _ in range(3):
        absent.publish()
        await asyncio.sleep(0.03)
    absent.stop_listening()
    await asyncio.to_thread(absent.close)


async def test_only_commits_that_record_history_are_hinted(settings: Settings, sql: Sql) -> None:
    hinted = 0

    def count() -> None:
        nonlocal hinted
        hinted += 1

    database = Database(
        settings, name="tests", publish=lambda messages: None, on_history_commit=count
    )
    await make_users(sql, 1)
    values = {"segment_id": await make_segment(sql, "A")}

    async def add(session: WriteSession) -> None:
        await session.execute(INSERT, values)

    async def fail(session: WriteSession) -> None:
        await session.execute(text("DELETE FROM memberships"))
        raise KeyError

    async def store_user(session: WriteSession) -> None:
        await session.execute(text("INSERT INTO users (id, created_at) VALUES (2, now())"))

    await database.transaction(add)
    assert hinted == 1
    with pytest.raises(KeyError):
        await database.transaction(fail)
    await database.transaction(
        lambda session: session.execute(text("DELETE FROM memberships")), dry_run=True
    )
    await database.transaction(store_user)
    assert hinted == 1
    await database.transaction(lambda session: session.execute(text("DELETE FROM memberships")))
    assert hinted == 2
    await database.dispose()
