"""The runner of mutations with keys: cancelled calls, preparations and waits."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import IdempotencyKeyInUse, MutationRejected, UserNotFound
from segmentql.graphql.types.idempotency import (
    IdempotentCall,
    MutationWork,
    NewResult,
    ReplayedResult,
    Work,
)
from segmentql.idempotency import service
from segmentql.idempotency.runner import DatabaseIdempotentRunner
from tests.conftest import Sql

CALL = IdempotentCall(None, "k", b"f" * 32)
REJECTED = MutationRejected(UserNotFound(("id",), 1))


def encode(payload: int) -> Any:
    return {"number": payload}


def work_of(work: Work[int], *, needs_lookup: bool = False) -> MutationWork[int, int]:
    async def prepare() -> Work[int]:
        return work

    return MutationWork(prepare, lambda result: result, needs_lookup=needs_lookup, limiter=None)


async def insert(session: WriteSession) -> int:
    """Store a user and return its id, which is higher in each call."""
    number = await session.scalar(
        text("""
        INSERT INTO users (id, created_at)
        SELECT count(*) + 1, clock_timestamp() FROM users RETURNING id
        """)
    )
    return int(number)


async def test_next_call_is_executed_if_the_first_is_cancelled(
    database: Database, sql: Sql
) -> None:
    started = asyncio.Event()

    async def endless(session: WriteSession) -> int:
        await insert(session)
        started.set()
        await asyncio.sleep(3600)
        return 0

    runner = DatabaseIdempotentRunner(database)
    first = asyncio.create_task(runner.run(CALL, work_of(endless), encode))
    await started.wait()
    others = [asyncio.create_task(runner.run(CALL, work_of(insert), encode)) for _ in range(3)]
    cancelled = asyncio.create_task(runner.run(CALL, work_of(insert), encode))
    await asyncio.sleep(0)
    cancelled.cancel()  # it ends without an effect on the others
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    results = await asyncio.gather(*others)
    assert results == [NewResult(1), ReplayedResult({"number": 1}), ReplayedResult({"number": 1})]
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_error_of_a_call_is_raised_by_concurrent_calls_and_not_stored(
    database: Database, sql: Sql
) -> None:
    calls = 0

    async def fail(session: WriteSession) -> int:
        nonlocal calls
        calls += 1
        await insert(session)
        raise ValueError

    runner = DatabaseIdempotentRunner(database)
    results = await asyncio.gather(
        *(runner.run(CALL, work_of(fail), encode) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [ValueError] * 3
    # One exception that all of them raised would collect the tracebacks of all.
    assert len({id(result) for result in results}) == 3
    assert calls == 1
    assert await runner.run(CALL, work_of(insert), encode) == NewResult(1)


async def test_preparation_is_skipped_if_the_key_has_a_result(database: Database, sql: Sql) -> None:
    async def prepare() -> Work[int]:
        raise AssertionError

    runner = DatabaseIdempotentRunner(database)
    await runner.run(CALL, work_of(insert, needs_lookup=True), encode)
    prepared = MutationWork(prepare, lambda result: result, needs_lookup=True, limiter=None)
    assert await runner.run(CALL, prepared, encode) == ReplayedResult({"number": 1})


async def test_preparation_that_is_rejected_because_of_a_call_elsewhere(
    database: Database, sql: Sql
) -> None:
    """After the lookup, another process commits the call and so causes the rejection."""
    other_process = DatabaseIdempotentRunner(database)

    async def prepare() -> Work[int]:
        await other_process.run(CALL, work_of(insert), encode)
        raise REJECTED

    prepared = MutationWork(prepare, lambda result: result, needs_lookup=True, limiter=None)
    runner = DatabaseIdempotentRunner(database)
    assert await runner.run(CALL, prepared, encode) == ReplayedResult({"number": 1})


async def test_preparation_that_is_rejected(database: Database, sql: Sql) -> None:
    async def prepare() -> Work[int]:
        raise REJECTED

    prepared = MutationWork(prepare, lambda result: result, needs_lookup=True, limiter=None)
    runner = DatabaseIdempotentRunner(database)
    with pytest.raises(MutationRejected):
        await runner.run(CALL, prepared, encode)
    assert await runner.run(CALL, work_of(insert), encode) == NewResult(1)


async def test_transaction_that_waits_too_long_reports_that_the_key_is_in_use(
    database: Database, sql: Sql
) -> None:
    async def claim(session: WriteSession) -> object:
        await session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        return await service.claim_key(session, None, "k", b"f" * 32)

    async with sql.transaction():
        await sql.execute(
            "INSERT INTO idempotency_keys (key, fingerprint, created_at) VALUES ('k', $1, now())",
            b"f" * 32,
        )
        with pytest.raises(IdempotencyKeyInUse):
            await database.transaction(claim)


async def test_transaction_that_conflicts_is_retried_with_its_claim(
    database: Database, sql: Sql
) -> None:
    attempts = 0

    async def conflict_once(session: WriteSession) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await session.execute(
                text("DO $$ BEGIN RAISE EXCEPTION USING errcode = 'deadlock_detected'; END $$")
            )
        return await insert(session)

    runner = DatabaseIdempotentRunner(database)
    assert await runner.run(CALL, work_of(conflict_once), encode) == NewResult(1)
    assert attempts == 2
    assert await runner.run(CALL, work_of(insert), encode) == ReplayedResult({"number": 1})
