"""`load_many` returns one value for each key, and fails or is cancelled as a whole."""

import asyncio

from sqlalchemy.exc import DBAPIError

from segmentql.errors import Unavailable
from segmentql.graphql.types.dataloader import LoaderRegistry
from tests.conftest import Sql, recorded_statements, until
from tests.graphql.loaders import (
    IsStored,
    MustBeStored,
    SmallBatches,
    WaitsForLock,
    lock_waiters,
    no_batch_runs,
)


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
