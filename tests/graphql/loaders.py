"""Loaders of users: with small batches, without missing users, and with a lock to wait for."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession
from segmentql.errors import Unavailable
from segmentql.graphql.types.dataloader import Loader
from tests.conftest import Sql

_STORED = text(
    """
    SELECT CAST(id AS text) AS id FROM users
    WHERE id IN (SELECT CAST(key AS bigint) FROM unnest(CAST(:keys AS text[])) AS key)
    """
)
_LOCKED = text("SELECT id, pg_advisory_xact_lock_shared(1) FROM users WHERE id = ANY(:ids)")


class IsStored(Loader[str, bool]):
    """A loader of whether a user exists, by decimal id; a key that is no number fails in SQL."""

    async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
        rows = await session.execute(_STORED, {"keys": list(keys)})
        return {row.id: True for row in rows}

    def on_missing(self, key: str) -> bool:
        return False


class SmallBatches(IsStored):
    max_keys = 3


class MustBeStored(IsStored):
    def on_missing(self, key: str) -> bool:
        raise Unavailable


class WaitsForLock(Loader[int, int]):
    """A loader that returns each key as its value, and waits for the advisory lock 1."""

    max_concurrent_batches = 2
    under_way: ClassVar[list[list[int]]] = []

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        self.under_way.append(list(keys))
        try:
            rows = await session.execute(_LOCKED, {"ids": list(keys)})
            return {row.id: row.id for row in rows}
        finally:
            self.under_way.remove(list(keys))

    def on_missing(self, key: int) -> int:
        raise AssertionError


async def no_batch_runs() -> bool:
    return WaitsForLock.under_way == []


def lock_waiters(sql: Sql, number: int) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the given number of statements waits for a lock."""

    async def is_reached() -> bool:
        result = await sql.fetchval(
            """
            SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
            WHERE d.datname = current_database() AND NOT granted
            """
        )
        return bool(result == number)

    return is_reached
