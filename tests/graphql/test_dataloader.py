"""Loaders batch the keys of one event loop turn, and keys do not affect each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters import connections
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import Unavailable
from segmentql.graphql.types.dataloader import Loader, LoaderRegistry
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import (
    PATIENCE_SECONDS,
    Api,
    Sql,
    needs_reads_of_the_primary,
    recorded_statements,
    until,
)

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


@pytest.fixture
async def database(
    settings: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """Open a database whose timeouts are longer than `until` waits.

    A statement that ends before is cancelled by its loader, and not by a timeout.
    """
    monkeypatch.setattr(connections, "LOCK_SECONDS", 4 * PATIENCE_SECONDS)
    patient = settings.model_copy(update={"statement_timeout_seconds": 4 * PATIENCE_SECONDS})
    opened = Database(patient, name="tests", publish=lambda _: None)
    yield opened
    await opened.dispose()


@pytest.fixture
async def loaders(database: Database, sql: Sql) -> LoaderRegistry:
    """Return loaders on a database with the users 1 to 20."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 20) AS n")
    return LoaderRegistry(database, primary=True)


@pytest.fixture
async def lock_holder(sql: Sql) -> AsyncIterator[Sql]:
    """Hold advisory lock 1 on a connection that the test may use to release it."""
    await sql.execute("SELECT pg_advisory_lock(1)")
    yield sql
    await sql.execute("SELECT pg_advisory_unlock_all()")


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


async def test_keys_of_one_loop_turn_share_one_statement(loaders: LoaderRegistry) -> None:
    loader = loaders.get(IsStored)
    with recorded_statements() as statements:
        results = await asyncio.gather(*(loader.load(str(key)) for key in range(15, 25)))
    assert results == [True] * 6 + [False] * 4
    assert len(statements) == 1


async def test_duplicate_keys_are_loaded_once(loaders: LoaderRegistry) -> None:
    batches: list[Sequence[str]] = []

    class RecordingLoader(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            batches.append(keys)
            return await super().load_batch(session, keys)

    loader = loaders.get(RecordingLoader)
    assert await asyncio.gather(*map(loader.load, ("1", "99", "1", "1"))) == [
        True,
        False,
        True,
        True,
    ]
    assert batches == [["1", "99"]]


async def test_results_are_not_cached_between_loads(loaders: LoaderRegistry, sql: Sql) -> None:
    loader = loaders.get(IsStored)
    assert await loader.load("21") is False
    await sql.execute("INSERT INTO users VALUES (21, now())")
    assert await loader.load("21") is True


async def test_key_does_not_join_a_batch_that_was_already_sent(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    before_commit = loader.load(1)
    await until(lock_waiters(lock_holder, 1))
    after_commit = loader.load(1)
    await until(lock_waiters(lock_holder, 2))
    await lock_holder.execute("SELECT pg_advisory_unlock(1)")
    assert [await before_commit, await after_commit] == [1, 1]


async def test_keys_above_max_keys_take_several_statements(loaders: LoaderRegistry) -> None:
    loader = loaders.get(SmallBatches)
    with recorded_statements() as statements:
        results = await asyncio.gather(*(loader.load(str(key)) for key in range(1, 21)))
    assert results == [True] * 20
    assert len(statements) == 7


async def test_waiting_keys_form_a_larger_batch_at_the_concurrency_limit(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    futures = []
    for key in (1, 2):
        futures.append(loader.load(key))
        await until(lock_waiters(lock_holder, key))
    for key in (3, 4, 5):
        futures.append(loader.load(key))
    assert WaitsForLock.under_way == [[1], [2]]
    with recorded_statements() as statements:
        await lock_holder.execute("SELECT pg_advisory_unlock(1)")
        assert await asyncio.gather(*futures) == [1, 2, 3, 4, 5]
    assert len(statements) == 1


async def test_invalid_key_fails_alone(loaders: LoaderRegistry) -> None:
    loader = loaders.get(IsStored)
    keys = ["1", "2", "bad", "3", "99", "worse"]
    results = await asyncio.gather(*map(loader.load, keys), return_exceptions=True)
    assert [results[position] for position in (0, 1, 3, 4)] == [True, True, True, False]
    for position in (2, 5):
        assert isinstance(results[position], DBAPIError)
        assert "invalid input syntax" in str(results[position])


async def test_missing_key_fails_without_failing_other_keys(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(MustBeStored)
    result, missing = await asyncio.gather(
        loader.load("1"), loader.load("99"), return_exceptions=True
    )
    assert result is True
    assert isinstance(missing, Unavailable)


async def test_unavailable_database_is_tried_twice_per_batch(
    servers: LocalServers, settings: Settings
) -> None:
    load_count = 0

    class CountingLoader(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            nonlocal load_count
            load_count += 1
            return await super().load_batch(session, keys)

    missing_database = Database(servers.settings("nowhere"), name="tests", publish=lambda _: None)
    loader = LoaderRegistry(missing_database, primary=True).get(CountingLoader)
    results = await asyncio.gather(
        *(loader.load(str(key)) for key in range(10)), return_exceptions=True
    )
    await missing_database.dispose()
    assert [type(result) for result in results] == [Unavailable] * 10
    assert load_count == 2


async def test_cancelled_load_does_not_cancel_other_loads(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    first, same, other = loader.load(1), loader.load(1), loader.load(2)
    await until(lock_waiters(lock_holder, 1))
    first.cancel()
    await lock_holder.execute("SELECT pg_advisory_unlock(1)")
    assert [await same, await other] == [1, 2]
    assert first.cancelled()


async def test_statement_without_waiters_is_cancelled(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    futures = [loader.load(1), loader.load(1), loader.load(2)]
    await until(lock_waiters(lock_holder, 1))
    for future in futures:
        future.cancel()
    await until(lock_waiters(lock_holder, 0))
    await until(no_batch_runs)
    await lock_holder.execute("SELECT pg_advisory_unlock(1)")
    assert await loader.load(1) == 1


async def test_key_cancelled_before_dispatch_is_not_loaded(loaders: LoaderRegistry) -> None:
    batches: list[Sequence[str]] = []

    class RecordingLoader(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            batches.append(keys)
            return await super().load_batch(session, keys)

    loader = loaders.get(RecordingLoader)
    loader.load("1").cancel()
    assert await loader.load("2") is True
    assert batches == [["2"]]


async def test_load_many_keeps_order_and_duplicates(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(IsStored)
    with recorded_statements() as statements:
        async with asyncio.timeout(10):
            many, one, none = await asyncio.gather(
                loader.load_many(["99", "1", "99", "2"]), loader.load("1"), loader.load_many([])
            )
    assert (many, one, none) == ([False, True, False, True], True, [])
    assert len(statements) == 1


async def test_load_many_may_take_several_statements(loaders: LoaderRegistry) -> None:
    keys = [str(key) for key in range(30, 10, -1)]
    assert await loaders.get(SmallBatches).load_many(keys) == [
        key <= 20 for key in range(30, 10, -1)
    ]


async def test_invalid_key_fails_its_load_many_only(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(IsStored)
    failed, many, one = await asyncio.gather(
        loader.load_many(["1", "bad", "worse"]),
        loader.load_many(["1", "2"]),
        loader.load("2"),
        return_exceptions=True,
    )
    assert isinstance(failed, DBAPIError)
    assert many == [True, True]
    assert one is True


async def test_missing_key_fails_its_load_many_only(loaders: LoaderRegistry) -> None:
    loader = loaders.get(MustBeStored)
    missed, result = await asyncio.gather(
        loader.load_many(["1", "99", "98"]), loader.load_many(["1", "2"]), return_exceptions=True
    )
    assert isinstance(missed, Unavailable)
    assert result == [True, True]


async def test_cancelled_load_many_does_not_cancel_other_loads(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    many, other = loader.load_many([1, 2]), loader.load_many([2, 3])
    await until(lock_waiters(lock_holder, 1))
    many.cancel()
    await lock_holder.execute("SELECT pg_advisory_unlock(1)")
    assert await other == [2, 3]
    assert many.cancelled()


async def test_load_many_statement_without_waiters_is_cancelled(
    loaders: LoaderRegistry, lock_holder: Sql
) -> None:
    loader = loaders.get(WaitsForLock)
    many, other = loader.load_many([1, 2, 1]), loader.load(1)
    await until(lock_waiters(lock_holder, 1))
    many.cancel()
    other.cancel()
    await until(lock_waiters(lock_holder, 0))
    await until(no_batch_runs)
    loader.load_many([4, 5]).cancel()
    await lock_holder.execute("SELECT pg_advisory_unlock(1)")
    assert await loader.load_many([1]) == [1]


async def test_loader_is_created_once_per_registry(loaders: LoaderRegistry) -> None:
    assert loaders.get(IsStored) is loaders.get(IsStored)
    assert loaders.get(IsStored) is not loaders.get(SmallBatches)


@needs_reads_of_the_primary
async def test_concurrent_requests_share_one_statement(api: Api, sql: Sql) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 10) AS n")
    query = "query($id: ID!) { user(id: $id) { id } }"
    requests = []

    async def all_under_way() -> bool:
        return "segmentql_requests_in_flight 10.0" in (await api.http.get("/metrics")).text

    with recorded_statements() as statements:
        async with sql.transaction():
            await sql.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            for number in range(1, Loader.max_concurrent_batches + 1):
                requests.append(asyncio.create_task(api(query, id=str(number))))
                await until(lock_waiters(sql, number))
            for number in range(Loader.max_concurrent_batches + 1, 11):
                requests.append(asyncio.create_task(api(query, id=str(number))))
            await until(all_under_way)
        results = await asyncio.gather(*requests)
    assert results == [{"user": {"id": str(number)}} for number in range(1, 11)]
    reads = [statement for statement in statements if "FROM users u WHERE id = ANY" in statement]
    assert len(reads) == Loader.max_concurrent_batches + 1
