"""Loaders batch the keys of one event loop turn, and keys do not affect each other."""

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy.exc import DBAPIError

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import Unavailable
from segmentql.graphql.types.dataloader import Loader, LoaderRegistry
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Api, Sql, needs_reads_of_the_primary, recorded_statements, until
from tests.graphql.loaders import (
    IsStored,
    MustBeStored,
    SmallBatches,
    WaitsForLock,
    lock_waiters,
    no_batch_runs,
)


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
