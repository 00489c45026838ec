"""What clients get for a time, a month or a cursor whose history was dropped."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.errors import CursorExpired
from segmentql.exports import actors as export_actors
from segmentql.exports.key_erasure import fail_exports_with_keys
from segmentql.feed.reader import FeedReader
from segmentql.feed.records import NO_FILTER, FeedStart
from segmentql.history.settled import BEFORE_FIRST_ROW, first_cursor
from segmentql.reports import actors as report_actors
from segmentql.reports.key_erasure import remake_reports_with_keys
from segmentql.settings import Settings
from tests.back_dating import insert_membership, insert_past_membership
from tests.conftest import Api, Sql, empty_tables
from tests.explain.operations import EXPLAIN
from tests.exports.queries import create_export, export, number
from tests.feed.queries import CHANGES, all_changes, changes
from tests.history.retention_helpers import (
    create_months,
    drop_before,
    drop_partitions,
    record_and_roll_up,
    start_of,
)
from tests.history.writers import join
from tests.reports import queries as reports

LIMIT = ConcurrencyLimit(per_process=10, per_key=10)
DAY = timedelta(days=1)
EARLIEST = start_of(3)
TOO_EARLY = EARLIEST - timedelta(microseconds=1)
ALLOWED = "a time in the past, not before 2024-03-01T00:00:00Z"

SEGMENTS = "query($at: DateTime) { user(id: 1) { segments(asOf: $at) { slug } } }"
COUNT = 'query($at: DateTime) { segment(slug: "A") { memberCount(asOf: $at) } }'
COUNTS = """
query($from: DateTime!, $to: DateTime!) {
  segment(slug: "A") { memberCounts(from: $from, to: $to, points: 3) { count } }
}
"""
CREATE_IMPORT = """
mutation($input: CreateImportInput!) {
  createImport(input: $input) { import { id } errors { code path ... on InvalidInput { allowed } } }
}
"""


@pytest.fixture
async def months(sql: Sql, segment_id: int) -> AsyncIterator[None]:
    """Store entries: user 1 is a member since January, user 2 was one from January to February,
    and user 3 in March."""
    await create_months(sql)
    await sql.execute("UPDATE segments SET created_at = $1", start_of(1))
    await sql.execute("UPDATE users SET created_at = $1", start_of(1))
    await insert_membership(sql, 1, "A", joined_at=start_of(1) + DAY)
    for user_id, joined, left in ((2, 1, 2), (3, 3, 3)):
        await insert_past_membership(
            sql, user_id, "A", joined_at=start_of(joined) + DAY, left_at=start_of(left) + 2 * DAY
        )
    yield
    await empty_tables(sql)
    await drop_partitions(sql)


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[FeedReader]:
    """Return a reader without hints."""
    opened = FeedReader(database, LIMIT)
    yield opened
    await opened.close()


@pytest.fixture
async def file_context(database: Database, settings: Settings) -> AsyncIterator[FileContext]:
    """Return the dependencies of the actors that make files."""
    storage = Storage(settings)
    await storage.set_up()
    yield FileContext(database, storage, retention_days=30)
    await storage.close()


@pytest.fixture
async def dropped(database: Database, months: None) -> None:
    """Drop the history before March."""
    await record_and_roll_up(database)
    await drop_before(database, EARLIEST)


def at(moment: datetime) -> str:
    return moment.isoformat()


async def test_earlier_as_of_is_rejected_with_the_earliest_one(api: Api, dropped: None) -> None:
    for query, variables, argument in (
        (SEGMENTS, {"at": at(TOO_EARLY)}, "asOf"),
        (COUNT, {"at": at(TOO_EARLY)}, "asOf"),
        (COUNTS, {"from": at(TOO_EARLY), "to": at(EARLIEST)}, "from"),
        (EXPLAIN, {"userId": "1", "slug": "A", "asOf": at(TOO_EARLY)}, "asOf"),
    ):
        error = await api.error(query, **variables)
        assert error["extensions"] == {
            "code": "BAD_REQUEST",
            "argument": argument,
            "allowed": ALLOWED,
        }
    error = await api.error(SEGMENTS, at="2999-01-01T00:00:00Z")
    assert error["extensions"]["allowed"] == "a time in the past"


async def test_one_rejected_time_does_not_fail_the_others(api: Api, dropped: None) -> None:
    """The loaders read both in one statement."""
    body = await api.body(
        """
        query($early: DateTime, $at: DateTime) { user(id: 1) {
          early: segments(asOf: $early) { slug }  segments(asOf: $at) { slug }
        } }
        """,
        early=at(TOO_EARLY),
        at=at(EARLIEST),
    )
    assert len(body["errors"]) == 1
    assert body["errors"][0]["path"] == ["user", "early"]


async def test_earliest_time_has_its_state(api: Api, dropped: None) -> None:
    assert await api(SEGMENTS, at=at(EARLIEST)) == {"user": {"segments": [{"slug": "A"}]}}
    assert await api(COUNT, at=at(EARLIEST)) == {"segment": {"memberCount": 1}}
    counts = await api(COUNTS, **{"from": at(EARLIEST), "to": at(EARLIEST + 2 * DAY)})
    assert [point["count"] for point in counts["segment"]["memberCounts"]] == [1, 2, 1]


async def test_mutations_reject_an_earlier_time(api: Api, dropped: None) -> None:
    payload = await create_export(api, "A", asOf=at(TOO_EARLY))
    assert [(e["path"], e["allowed"]) for e in payload["errors"]] == [(["asOf"], ALLOWED)]
    source = {"segments": {"anyOf": ["A"], "asOf": at(TOO_EARLY)}}
    data = await api(CREATE_IMPORT, input={"slug": "A", "mode": "ADD", "source": source})
    path = ["source", "segments", "asOf"]
    assert data["createImport"]["errors"] == [
        {"code": "INVALID_INPUT", "path": path, "allowed": ALLOWED}
    ]
    payload = await reports.create_report(api, year=2024, month=2)
    (error,) = payload["errors"]
    assert error["path"] == ["month"]
    assert error["message"].startswith("month is not valid: the history of 2024-02 was dropped")
    assert error["allowed"].startswith("a month from 2024-03 to 2")
    assert (await reports.create_report(api, year=2023, month=5))["errors"][0]["path"] == ["year"]
    assert (await reports.create_report(api, year=2024, month=3))["errors"] == []
    assert (await create_export(api, "A", asOf=at(EARLIEST)))["errors"] == []


async def test_explanation_does_not_claim_to_know_dropped_history(api: Api, dropped: None) -> None:
    found = (await api(EXPLAIN, userId="2", slug="A"))["explain"]
    assert found["summary"] == (
        'User 2 has not been added to "A" since 2024-03-01 00:00:00 UTC, the beginning of history,'
        " and the segment has no rollout."
    )
    active = (await api(EXPLAIN, userId="1", slug="A"))["explain"]
    assert active["since"] == "2024-01-02T00:00:00.000000Z"


async def test_pages_of_history_end_with_the_kept_joins(api: Api, dropped: None) -> None:
    data = await api(
        "{ history(first: 10) { nodes { userId operation } pageInfo { hasNextPage } } }"
    )
    assert data["history"] == {
        "nodes": [
            {"userId": "3", "operation": "LEFT"},
            {"userId": "3", "operation": "JOINED"},
            {"userId": "1", "operation": "JOINED"},
        ],
        "pageInfo": {"hasNextPage": False},
    }


async def test_cursor_before_dropped_history_is_expired(
    api: Api, sql: Sql, database: Database, months: None
) -> None:
    """Also the cursor of a kept row, because rows after it were dropped."""
    events = (await changes(api, start="EARLIEST"))["events"]
    kept = events[0]["cursor"]
    assert events[0]["entry"]["userId"] == "1"
    newest = events[-1]["cursor"]
    await record_and_roll_up(database)
    await drop_before(database, EARLIEST)
    for cursor in (kept, BEFORE_FIRST_ROW.encode()):
        error = await api.error(CHANGES, after=cursor)
        assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    assert (await changes(api, after=newest))["events"] == []
    entries = await all_changes(api)
    assert [(entry["userId"], entry["operation"]) for entry in entries] == [
        ("3", "JOINED"),
        ("3", "LEFT"),
    ]


async def test_consumer_continues_if_all_history_is_dropped(
    reader: FeedReader, sql: Sql, database: Database, months: None, segment_id: int
) -> None:
    await record_and_roll_up(database)
    newest = await reader.resolve_start(None, FeedStart.NOW)
    await drop_before(database, start_of(4))
    position = await sql.fetchval("SELECT dropped_position FROM dropped_history")
    assert newest.position == position
    fresh = FeedReader(database, LIMIT)
    starts = [
        newest,
        await fresh.resolve_start(None, FeedStart.NOW),
        await fresh.resolve_start(None, FeedStart.EARLIEST),
    ]
    assert starts[1:] == [first_cursor(position)] * 2
    for cursor in starts:
        assert await fresh.resolve_start(cursor, FeedStart.NOW) == cursor
        batch = await fresh.read(cursor, change_filter=NO_FILTER, max_changes=10)
        assert (batch.changes, batch.cursor) == ([], cursor)
    await join(sql, 9, segment_id)
    for cursor in starts:
        await fresh.resolve_start(cursor, FeedStart.NOW)
        batch = await fresh.read(cursor, change_filter=NO_FILTER, max_changes=10)
        assert [change.entry.user_id for change in batch.changes] == [9]
    with pytest.raises(CursorExpired):
        await fresh.resolve_start(first_cursor(position - 1), FeedStart.NOW)
    await fresh.close()


async def test_export_after_the_drop_has_a_valid_cursor(
    api: Api, sql: Sql, database: Database, months: None, segment_id: int
) -> None:
    await record_and_roll_up(database)
    await drop_before(database, start_of(4))
    payload = await create_export(api, "A")
    assert payload["errors"] == []
    cursor = payload["export"]["cursor"]
    assert (await changes(api, after=cursor))["events"] == []
    await join(sql, 9, segment_id)
    events = (await changes(api, after=cursor))["events"]
    assert [event["entry"]["userId"] for event in events] == ["9"]


async def finished(api: Api, sql: Sql, context: FileContext) -> list[Any]:
    """Make all files until none is queued; return the status and failure of each."""
    for table, make in (
        ("exports", export_actors.make_export),
        ("reports", report_actors.make_report),
    ):
        pending = f"SELECT id FROM {table} WHERE status = 'QUEUED'"
        while rows := await sql.fetch(pending):
            await sql.execute(f"UPDATE {table} SET next_attempt_at = now() WHERE status = 'QUEUED'")
            for row in rows:
                await make(context, row["id"])
    return [
        tuple(row)
        for table in ("exports", "reports")
        for row in await sql.fetch(f"SELECT status::text, failure FROM {table} ORDER BY id")
    ]


async def test_files_that_were_requested_before_the_drop_fail(
    api: Api, sql: Sql, database: Database, file_context: FileContext, months: None
) -> None:
    failure = "the history before 2024-03-01T00:00:00Z was dropped"
    created = await create_export(api, "A", asOf=at(TOO_EARLY))
    await create_export(api, "A", asOf=at(EARLIEST))
    for month in (2, 3):
        await reports.create_report(api, year=2024, month=month)
    await record_and_roll_up(database)
    await drop_before(database, EARLIEST)
    failed, ready = ("FAILED", failure), ("READY", None)
    await export_actors.make_export(file_context, number(created["export"]["id"]))
    assert (await export(api, created["export"]["id"]))["failure"] == failure  # no other attempt
    assert await finished(api, sql, file_context) == [failed, ready, failed, ready]


async def test_erasure_of_a_key_discards_files_of_dropped_history(
    api: Api, sql: Sql, database: Database, file_context: FileContext, months: None
) -> None:
    """The history that says which users are in the files does not exist any more."""
    await create_export(api, "A", asOf=at(TOO_EARLY))
    await reports.create_report(api, year=2024, month=2, withKeys=True)
    assert await finished(api, sql, file_context) == [("READY", None)] * 2
    await record_and_roll_up(database)
    await drop_before(database, EARLIEST)

    async def erase(session: Any) -> None:
        await fail_exports_with_keys(session, [2])
        await remake_reports_with_keys(session, [2])

    await database.transaction(erase)
    states = await finished(api, sql, file_context)
    assert [status for status, _ in states] == ["FAILED", "FAILED"]
