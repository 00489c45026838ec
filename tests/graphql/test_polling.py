"""A poller runs one query for all subscribers, and none without subscribers."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.polling import Poller
from tests.conftest import until


class StoredUserPoller(Poller[int, str]):
    """A poller that reports when a user is stored."""

    poll_interval_seconds = 0.01
    polls: list[tuple[int, ...]]

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, str]:
        self.polls.append(tuple(keys))
        rows = await session.execute(
            text("SELECT id FROM users WHERE id = ANY(:ids)"), {"ids": list(keys)}
        )
        return {row.id: f"user {row.id}" for row in rows}


@pytest.fixture
async def stored(database: Database) -> AsyncIterator[StoredUserPoller]:
    poller = StoredUserPoller(database, primary=True)
    poller.polls = []
    yield poller
    await until(lambda: is_idle(poller))


async def is_idle(poller: StoredUserPoller) -> bool:
    return poller._task is None


async def store(database: Database, user_id: int) -> None:
    statement = text("INSERT INTO users (id, created_at) VALUES (:id, clock_timestamp())")
    await database.transaction(lambda session: session.execute(statement, {"id": user_id}))


async def wait_for_polls(poller: StoredUserPoller) -> None:
    """Wait for two more polls."""
    before = len(poller.polls)

    async def has_polled() -> bool:
        return len(poller.polls) >= before + 2

    await until(has_polled)


async def test_subscribers_share_a_poll(database: Database, stored: StoredUserPoller) -> None:
    futures = [stored.subscribe(number) for number in (1, 2, 2, 3)]
    await wait_for_polls(stored)
    assert set(stored.polls) == {(1, 2, 3)}
    await store(database, 2)
    assert await asyncio.gather(*futures[1:3]) == ["user 2", "user 2"]
    await wait_for_polls(stored)
    assert stored.polls[-1] == (1, 3)
    for subscribe in (futures[0], futures[3]):
        assert subscribe.cancel()


async def test_poll_omits_cancelled_and_answered_keys(
    database: Database, stored: StoredUserPoller
) -> None:
    cancelled, remaining = stored.subscribe(1), stored.subscribe(2)
    await wait_for_polls(stored)
    cancelled.cancel()
    await wait_for_polls(stored)
    assert stored.polls[-1] == (2,)
    await store(database, 2)
    assert await remaining == "user 2"
    polls = len(stored.polls)
    assert await stored.subscribe(2) == "user 2"
    assert stored.polls[polls:] == [(2,)]


async def test_fault_fails_all_subscribers_and_a_later_one_polls_again(
    database: Database, stored: StoredUserPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(session: ReadSession, keys: Sequence[int]) -> Mapping[int, str]:
        raise ZeroDivisionError

    working_poll = stored.poll
    monkeypatch.setattr(stored, "poll", broken)
    results = await asyncio.gather(stored.subscribe(1), stored.subscribe(2), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, ZeroDivisionError]
    monkeypatch.setattr(stored, "poll", working_poll)
    await store(database, 1)
    assert await stored.subscribe(1) == "user 1"
