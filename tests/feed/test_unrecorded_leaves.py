"""The feed has TTL ends, deletions of segments and of users, with no worker."""

import asyncio
from typing import Any

from segmentql.adapters.database import Database
from segmentql.feed import leave_recorder
from segmentql.feed.leave_recorder import UnrecordedLeaveRecorder
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, FeedStart
from segmentql.history.settled import BEFORE_FIRST_ROW
from tests.conftest import Api, Sql, recorded_statements, until
from tests.feed.queries import all_changes, changes
from tests.graphql.test_faults import renamed_table
from tests.history.writers import Connect
from tests.operations import make_segments, update_user_segments
from tests.timeline import HOUR, SECOND, add_members, add_membership, make_segment, mark_deleted


def ends(entries: list[Any]) -> list[tuple[str, str]]:
    return [(entry["userId"], entry["cause"]) for entry in entries if entry["operation"] == "LEFT"]


async def test_call_records_unrecorded_leaves_before_it_reads(feed_api: Api, sql: Sql) -> None:
    first, second = await make_segment(sql, "A"), await make_segment(sql, "B")
    expired = await add_membership(sql, 1, first, ends_in=-HOUR)
    await add_membership(sql, 2, second)
    deleted_at = await mark_deleted(sql, second)
    entries = await all_changes(feed_api)
    assert sorted(ends(entries)) == [("1", "TTL"), ("2", "SEGMENT_DELETED")]
    by_user = {entry["userId"]: entry["at"] for entry in entries if entry["operation"] == "LEFT"}
    assert by_user["1"] == f"{expired['expires_at']:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert by_user["2"] == f"{deleted_at:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert await sql.fetchval("SELECT leaves_recorded_at FROM segments WHERE slug = 'B'")
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0


async def test_deleted_user_leaves_in_the_feed(feed_api: Api) -> None:
    await make_segments(feed_api, "A", "B")
    await update_user_segments(feed_api, 1, add=["A", "B"])
    after = (await changes(feed_api))["cursor"]
    await feed_api("mutation { deleteUser(input: {id: 1}) { errors { message } } }")
    entries = await all_changes(feed_api, after)
    assert ends(entries) == [("1", "USER_DELETED")] * 2


async def test_waiting_consumer_gets_an_expiry_at_its_time(feed_api: Api, sql: Sql) -> None:
    """The wait takes as long as the TTL, about a second."""
    before = (await changes(feed_api))["cursor"]
    await add_membership(sql, 1, await make_segment(sql, "A"), ends_in=SECOND)
    joined = await changes(feed_api, after=before, first=1)
    batch = await changes(feed_api, after=joined["cursor"], wait=30)
    assert ends([event["entry"] for event in batch["events"]]) == [("1", "TTL")]
    recorded_late = await sql.fetchval(
        "SELECT recorded_at - at < interval '10 seconds' FROM history WHERE operation = 'LEFT'"
    )
    assert recorded_late


async def test_waiting_consumer_gets_leaves_of_a_segment_deleted_meanwhile(
    feed_api: Api, sql: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, 3)
    after = (await changes(feed_api))["cursor"]
    waiting = asyncio.create_task(changes(feed_api, after=after, wait=30))
    await mark_deleted(sql, segment_id)
    batch = await waiting
    left = ends([event["entry"] for event in batch["events"]])
    assert left == [(str(user_id), "SEGMENT_DELETED") for user_id in (1, 2, 3)]


async def test_recording_is_bounded_and_the_next_calls_continue(feed_api: Api, sql: Sql) -> None:
    """It records ten thousand leaves, which takes a second."""
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, leave_recorder.MAX_CHUNKS * leave_recorder.CHUNK_ROWS + 1)
    newest = (await changes(feed_api))["cursor"]
    await mark_deleted(sql, segment_id)
    batch = await changes(feed_api, after=newest, first=1000)
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 1
    assert (len(batch["events"]), batch["caughtUp"]) == (1000, False)
    rest = await all_changes(feed_api, batch["cursor"], first=1000)
    assert len(rest) == leave_recorder.MAX_CHUNKS * leave_recorder.CHUNK_ROWS + 1 - 1000
    assert await sql.fetchval("SELECT leaves_recorded_at FROM segments")


async def test_call_does_not_wait_for_a_leave_that_another_transaction_locks(
    feed_api: Api, sql: Sql, connect: Connect
) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id, ends_in=-HOUR)
    await add_membership(sql, 2, segment_id, ends_in=-HOUR)
    writer = await connect()
    await writer.execute("BEGIN")
    await writer.execute("SELECT FROM users WHERE id = 1 FOR NO KEY UPDATE")
    batch = await changes(feed_api, start="EARLIEST")
    assert ends([event["entry"] for event in batch["events"]]) == [("2", "TTL")]
    assert batch["caughtUp"] is False
    await writer.execute("ROLLBACK")
    batch = await changes(feed_api, after=batch["cursor"])
    assert ends([event["entry"] for event in batch["events"]]) == [("1", "TTL")]
    assert batch["caughtUp"] is True


async def test_several_processes_record_each_leave_once(database: Database, sql: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    for user_id in range(1, 30):
        await add_membership(sql, user_id, segment_id, ends_in=-HOUR)
    recorders = [UnrecordedLeaveRecorder(database, on_recorded=lambda: None) for _ in range(3)]

    async def record_all(recorder: UnrecordedLeaveRecorder) -> None:
        async def is_complete() -> bool:
            await recorder.record()
            return recorder.is_complete

        await until(is_complete)

    await asyncio.gather(*map(record_all, recorders))
    assert await sql.fetchval("SELECT count(*) FROM history WHERE operation = 'LEFT'") == 29
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0


async def test_recorder_continues_after_an_unexpected_error(reader: FeedReader, sql: Sql) -> None:
    await add_membership(sql, 1, await make_segment(sql, "A"), ends_in=-HOUR)
    with reader.consumers.counted("key", "waiting"), recorded_statements() as statements:
        async with renamed_table(sql, "memberships") as logged:
            await reader.record_leaves()  # the read that follows raises the error, if it has one

            async def has_tried_again() -> bool:
                return sum("leaves_recorded_at IS NULL" in each for each in statements) >= 3

            await until(has_tried_again)
        assert [line["event"] for line in logged] == ["leaves_not_recorded"]
        await until(lambda: sql.fetchval("SELECT count(*) = 0 FROM memberships"))


async def test_recorder_runs_only_while_there_are_consumers(reader: FeedReader, sql: Sql) -> None:
    def is_running() -> bool:
        return leave_recorder.TASK_NAME in {task.get_name() for task in asyncio.all_tasks()}

    cursor = await reader.resolve_start(None, FeedStart.EARLIEST)
    assert cursor == BEFORE_FIRST_ROW
    await reader.read(cursor, change_filter=NO_FILTER, max_changes=1)
    assert not is_running()
    with reader.consumers.counted("key", "waiting"), reader.consumers.counted("key", "stream"):
        assert is_running()

    async def has_ended() -> bool:
        return not is_running()

    await until(has_ended)
