"""The tracker follows the settled position while callers wait, and then holds no connection."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.history.settled import BEFORE_FIRST_ROW
from segmentql.history.tracker import TASK_NAME, SettledPositionTracker
from tests.conftest import Sql, recorded_statements, until
from tests.history.writers import Connect, begin_join, join, position_of


@pytest.fixture
async def tracker(database: Database) -> SettledPositionTracker:
    return SettledPositionTracker(database)


async def polls(statements: list[str], count: int) -> None:
    """Wait until `count` more statements were sent."""
    needed = len(statements) + count

    async def are_sent() -> bool:
        return len(statements) >= needed

    await until(are_sent)


async def polling_has_ended() -> bool:
    return TASK_NAME not in {task.get_name() for task in asyncio.all_tasks()}


def lag_seconds() -> float:
    value = REGISTRY.get_sample_value("segmentql_history_settled_lag_seconds")
    assert value is not None
    return value


async def test_step_settles_what_was_committed_before_it(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    assert await tracker.advance() == BEFORE_FIRST_ROW
    for user_id in (1, 2):
        await join(sql, user_id, segment_id)
        cursor = await tracker.advance()
        assert cursor is not None
        assert cursor.position == await position_of(sql, user_id)


async def test_step_without_new_rows_is_one_statement(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    await tracker.advance()
    with recorded_statements() as statements:
        await tracker.advance()
    assert len(statements) == 1


async def test_pending_transaction_stops_the_position_until_its_end(
    tracker: SettledPositionTracker, sql: Sql, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    assert await tracker.advance() is None
    await writer.execute("ROLLBACK")
    assert await tracker.advance() == BEFORE_FIRST_ROW

    await begin_join(writer, 2, segment_id)
    await join(sql, 3, segment_id)
    assert await tracker.advance() == BEFORE_FIRST_ROW
    await writer.execute("COMMIT")
    cursor = await tracker.advance()
    assert cursor is not None
    assert cursor.position == await position_of(sql, 3)


async def test_overlapping_transactions_do_not_starve_the_position(
    tracker: SettledPositionTracker, sql: Sql, connect: Connect, segment_id: int
) -> None:
    """At every time a transaction is pending, and every row settles nevertheless."""
    writers = [await connect(), await connect()]
    await begin_join(writers[1], 1, segment_id)
    settled_positions, committed_positions = [], []
    for user_id in range(2, 8):
        await tracker.advance()
        await begin_join(writers[user_id % 2], user_id, segment_id)
        await writers[(user_id + 1) % 2].execute("COMMIT")
        cursor = await tracker.advance()
        assert cursor is not None
        settled_positions.append(cursor.position)
        committed_positions.append(await position_of(sql, user_id - 1))
    assert settled_positions == committed_positions


async def test_concurrent_calls_share_a_step(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    """The calls during a step share the next one, because a commit may have preceded them."""
    await tracker.advance()
    with recorded_statements() as statements:
        cursors = await asyncio.gather(*(tracker.advance() for _ in range(20)))
    assert cursors == [BEFORE_FIRST_ROW] * 20
    assert len(statements) == 2


async def test_failed_step_is_repeated_by_the_next_caller(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    await join(sql, 1, segment_id)
    failing = asyncio.create_task(tracker.advance())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(tracker.advance())
    await asyncio.sleep(0)
    failing.cancel()
    cursor = await waiting
    assert cursor is not None
    assert cursor.position == await position_of(sql, 1)


async def test_waiters_get_the_next_row_and_polling_ends(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    with recorded_statements() as statements:
        waiting = [asyncio.create_task(tracker.wait_beyond(0)) for _ in range(3)]
        await polls(statements, 4)
        assert not any(task.done() for task in waiting)
        await join(sql, 1, segment_id)
        cursors = await asyncio.gather(*waiting)
    position = await position_of(sql, 1)
    assert [cursor.position for cursor in cursors] == [position] * 3
    await until(polling_has_ended)

    cancelled = asyncio.create_task(tracker.wait_beyond(position))
    with recorded_statements() as statements:
        await polls(statements, 2)
    cancelled.cancel()
    await until(polling_has_ended)


async def test_waiting_for_a_transaction_holds_no_connection(
    database: Database, tracker: SettledPositionTracker, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    waiting = asyncio.create_task(tracker.wait_beyond(0))
    with recorded_statements() as statements:
        await polls(statements, 4)

        async def holds_no_connection() -> bool:
            return database.pool_in_use() == 0

        await until(holds_no_connection)
    await writer.execute("COMMIT")
    await waiting
    await until(polling_has_ended)


async def test_lag_grows_with_a_pending_transaction_and_is_zero_without_waiters(
    tracker: SettledPositionTracker, connect: Connect, segment_id: int
) -> None:
    writer = await connect()
    await begin_join(writer, 1, segment_id)
    waiting = asyncio.create_task(tracker.wait_beyond(0))

    async def lags() -> bool:
        return lag_seconds() > 0.3

    await until(lags)
    await writer.execute("COMMIT")
    cursor = await waiting
    await until(polling_has_ended)
    assert lag_seconds() == 0

    idle = asyncio.create_task(tracker.wait_beyond(cursor.position))

    async def is_polling() -> bool:
        return lag_seconds() > 0

    await until(is_polling)
    assert lag_seconds() < 0.3
    idle.cancel()
    await until(polling_has_ended)


async def test_lowered_sequence_wakes_waiters_and_starts_over(
    tracker: SettledPositionTracker, sql: Sql, segment_id: int
) -> None:
    """As after a restore of the same database."""
    for user_id in (1, 2, 3):
        await join(sql, user_id, segment_id)
    before = await tracker.advance()
    assert before is not None
    waiting = asyncio.create_task(tracker.wait_beyond(before.position))
    with recorded_statements() as statements:
        await polls(statements, 2)
    await sql.execute("DELETE FROM history WHERE user_id > 1")
    await sql.fetchval("SELECT setval('history_position_seq', max(position)) FROM history")
    after = await waiting
    assert after.position == await position_of(sql, 1) < before.position
    await until(polling_has_ended)
