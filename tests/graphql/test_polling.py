"""Watchers: one look for all who wait, and none while nobody does."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database, ReadSession
from segmentql.graphql.types.polling import Poller
from tests.conftest import until


class Stored(Poller[int, str]):
    """Tells when a user is stored."""

    poll_interval_seconds = 0.01
    looks: list[tuple[int, ...]]

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, str]:
        self.looks.append(tuple(keys))
        rows = await session.execute(
            text("SELECT id FROM users WHERE id = ANY(:ids)"), {"ids": list(keys)}
        )
        return {row.id: f"user {row.id}" for row in rows}


@pytest.fixture
async def stored(database: Database) -> AsyncIterator[Stored]:
    watcher = Stored(database, primary=True)
    watcher.looks = []
    yield watcher
    await until(lambda: nobody_looks(watcher))


async def nobody_looks(watcher: Stored) -> bool:
    return watcher._task is None


async def store(database: Database, user_id: int) -> None:
    statement = text("INSERT INTO users (id, created_at) VALUES (:id, clock_timestamp())")
    await database.transaction(lambda session: session.execute(statement, {"id": user_id}))


async def looked(watcher: Stored) -> None:
    """Wait for two more looks."""
    before = len(watcher.looks)

    async def has() -> bool:
        return len(watcher.looks) >= before + 2

    await until(has)


async def test_all_who_wait_share_a_look(database: Database, stored: Stored) -> None:
    waits = [stored.subscribe(number) for number in (1, 2, 2, 3)]
    await looked(stored)
    assert set(stored.looks) == {(1, 2, 3)}
    await store(database, 2)
    assert await asyncio.gather(*waits[1:3]) == ["user 2", "user 2"]
    await looked(stored)
    assert stored.looks[-1] == (1, 3)
    for subscribe in (waits[0], waits[3]):
        assert subscribe.cancel()


async def test_nobody_looks_for_who_left_or_has_an_answer(
    database: Database, stored: Stored
) -> None:
    gone, staying = stored.subscribe(1), stored.subscribe(2)
    await looked(stored)
    gone.cancel()
    await looked(stored)
    assert stored.looks[-1] == (2,)
    await store(database, 2)
    assert await staying == "user 2"
    looks = len(stored.looks)
    assert await stored.subscribe(2) == "user 2"
    assert stored.looks[looks:] == [(2,)]


async def test_a_fault_is_told_to_all_and_the_next_wait_looks_again(
    database: Database, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(session: ReadSession, keys: Sequence[int]) -> Mapping[int, str]:
        raise ZeroDivisionError

    right = stored.poll
    monkeypatch.setattr(stored, "poll", broken)
    answers = await asyncio.gather(stored.subscribe(1), stored.subscribe(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ZeroDivisionError, ZeroDivisionError]
    monkeypatch.setattr(stored, "poll", right)
    await store(database, 1)
    assert await stored.subscribe(1) == "user 1"
