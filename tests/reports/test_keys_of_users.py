"""A report with keys has a fifth column. It is made again when one of its keys is erased."""

import asyncio
import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.csv_files.stats import read_stats
from segmentql.exports.user_deletion import delete_user_everywhere
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.principal import NO_ACTOR
from segmentql.reports import key_erasure
from segmentql.reports.actors import find_due, make_report
from segmentql.reports.csv_export import CsvExport
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT
from segmentql.reports.records import ReportScope
from segmentql.tables import ReportStatus
from tests.back_dating import HOUR, MICROSECOND, insert_membership, insert_past_membership
from tests.conftest import Api, Sql, until
from tests.operations import delete_user, make_segments, set_user_key
from tests.reports.queries import create_report, report

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
KEY = "alice@example.com"
QUOTED = 'a "quoted", key'


async def csv_of(database: Database, *, user_id: int | None = None, with_keys: bool = True) -> str:
    async with database.long_read(seconds=30) as session:
        export = CsvExport(session, ReportScope(2024, 3, user_id, with_keys))
        return b"".join([chunk async for chunk in export.chunks()]).decode()


@pytest.fixture
async def march(api: Api, sql: Sql) -> None:
    """Store joins of users 1 to 4 in March 2024. Users 1 and 2 have keys, user 3 has none.

    User 4 has an unrecorded leave and a key; an earlier user 4 had another key.
    """
    await make_segments(api, "a", "b")
    for user_id, key in ((1, KEY), (2, QUOTED), (3, None)):
        await insert_membership(sql, user_id, "a", joined_at=MARCH + timedelta(seconds=user_id))
        if key:
            await set_user_key(api, user_id, key)
    await insert_past_membership(
        sql, 4, "a", joined_at=MARCH + HOUR, left_at=MARCH + 2 * HOUR, why_left="USER_DELETED"
    )
    await sql.execute(
        "INSERT INTO user_lifetimes (user_id, insert_seq, created_at, deleted_at, key)"
        " VALUES (4, 0, $1, $2, 'earlier')",
        MARCH,
        MARCH + 2 * HOUR,
    )
    later = MARCH + 2 * HOUR + MICROSECOND
    await insert_membership(sql, 4, "b", joined_at=later, expires_at=MARCH + 3 * HOUR)
    await set_user_key(api, 4, "later")


LINES = [
    "user_id,segment_slug,operation,executed_at,user_key",
    f"1,a,I,2024-03-01 00:00:01,{KEY}",
    '2,a,I,2024-03-01 00:00:02,"a ""quoted"", key"',
    "3,a,I,2024-03-01 00:00:03,",
    "4,a,I,2024-03-01 01:00:00,earlier",
    "4,a,D,2024-03-01 02:00:00,earlier",
    "4,b,I,2024-03-01 02:00:00,later",
    "4,b,D,2024-03-01 03:00:00,later",
]


async def test_fifth_column_has_the_key_of_the_lifetime(database: Database, march: None) -> None:
    assert await csv_of(database) == "\n".join(LINES) + "\n"
    of_user = [LINES[0], *(line for line in LINES if line.startswith("4,"))]
    assert await csv_of(database, user_id=4) == "\n".join(of_user) + "\n"
    rows = list(csv.reader(io.StringIO(await csv_of(database))))
    assert rows[2][4] == QUOTED


async def test_report_without_keys_is_the_first_four_columns(
    database: Database, march: None
) -> None:
    without = await csv_of(database, with_keys=False)
    rows = csv.reader(io.StringIO(await csv_of(database)))
    assert without == "".join(",".join(row[:4]) + "\n" for row in rows)


async def end_delay(sql: Sql) -> None:
    """Move the rows, as if the last erasure of a key was `REMAKE_DELAY_SECONDS` ago."""
    await sql.execute(
        "UPDATE reports SET next_attempt_at = next_attempt_at - make_interval(secs => $1)",
        key_erasure.REMAKE_DELAY_SECONDS,
    )


async def download(report_context: FileContext, sql: Sql, report_id: int) -> str | None:
    """Return the file of a report; None if the report has none."""
    key = await sql.fetchval("SELECT object_key FROM reports WHERE id = $1", report_id)
    return await download_object(report_context, key)


async def download_object(report_context: FileContext, key: str) -> str | None:
    storage = report_context.storage
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket, Prefix=key)
    if not listed.get("Contents"):
        return None
    found = await client.get_object(Bucket=storage._bucket, Key=key)
    return (await found["Body"].read()).decode()


async def test_with_keys_selects_the_file_that_a_worker_makes(
    api: Api, sql: Sql, march: None, report_context: FileContext
) -> None:
    query = "query($id: ID!) { report(id: $id) { withKeys rowCount fileName } }"
    files: dict[int, str | None] = {}
    inputs: tuple[dict[str, bool | None], ...] = ({"withKeys": True}, {"withKeys": None}, {})
    for number, fields in enumerate(inputs, start=1):
        payload = await create_report(api, year=2024, month=3, **fields)
        assert payload["errors"] == []
        await make_report(report_context, number)
        found = (await api(query, id=payload["report"]["id"]))["report"]
        assert found == {
            "withKeys": fields.get("withKeys") is True,
            "rowCount": 7,
            "fileName": "segments-all-2024-03.csv",
        }
        files[number] = await download(report_context, sql, number)
    assert files[1] == "\n".join(LINES) + "\n"
    assert files[2] == files[3]
    assert (files[2] or "").startswith("user_id,segment_slug,operation,executed_at\n")


async def test_erasure_replaces_the_file(
    api: Api,
    sql: Sql,
    march: None,
    report_context: FileContext,
    object_context: ObjectContext,
) -> None:
    await create_report(api, year=2024, month=3, withKeys=True)
    await make_report(report_context, 1)
    old_key = await sql.fetchval("SELECT object_key FROM reports")
    assert KEY in (await download_object(report_context, old_key) or "")
    await sql.execute("UPDATE reports SET created_at = created_at - interval '20 days'")
    await delete_user(api, KEY, eraseKey=True)
    waiting = await report(api, "rep_1")
    assert (waiting["status"], waiting["downloadUrl"], waiting["rowCount"]) == (
        "QUEUED",
        None,
        None,
    )
    async with report_context.database.read() as session:
        stats = await read_stats(session, REPORT_FILES)
    # The age counts from the erasure, not from the request.
    assert stats.counts[ReportStatus.QUEUED] == 1
    assert stats.oldest_waiting_seconds < 3600
    await delete_objects(object_context)
    assert await download_object(report_context, old_key) is None
    await end_delay(sql)
    await make_report(report_context, 1)
    remade = await report(api, "rep_1")
    assert (remade["status"], remade["rowCount"]) == ("READY", 7)  # the leave is not in March
    assert await download(report_context, sql, 1) == (
        "\n".join([LINES[0], "1,a,I,2024-03-01 00:00:01,", *LINES[2:]]) + "\n"
    )


async def test_message_of_a_remade_report_is_sent_after_the_commit(
    database: Database, sql: Sql, march: None, sent: list[Message]
) -> None:
    await sql.execute(
        "INSERT INTO reports (user_id, year, month, with_keys, status, created_at, finished_at,"
        " next_attempt_at) VALUES (1, 2024, 3, true, 'READY', now(), now(), now())"
    )

    async def erase(session: Any) -> None:
        await delete_user_everywhere(session, user_key=KEY, erase_key=True, actor=NO_ACTOR)
        assert sent == []

    await database.transaction(erase)
    delay_seconds = key_erasure.REMAKE_DELAY_SECONDS
    assert sent == [Message(MAKE_REPORT, (1,), delay_seconds=delay_seconds)]
    assert await find_due(database) == []
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '2 s'")
    assert await find_due(database) == [Message(MAKE_REPORT, (1,))]  # if the message was lost


async def test_attempt_that_read_an_erased_key_publishes_nothing(
    api: Api, sql: Sql, march: None, report_context: FileContext
) -> None:
    database = report_context.database
    await create_report(api, year=2024, month=3, withKeys=True)
    attempt = await database.transaction(lambda session: attempts.claim(session, REPORT_FILES, 1))
    assert attempt is not None
    await delete_user(api, KEY, eraseKey=True)
    await end_delay(sql)
    second = await database.transaction(lambda session: attempts.claim(session, REPORT_FILES, 1))
    assert second is not None
    # The attempts are counted from 1 again. Their object keys differ.
    assert second.number == attempt.number
    assert second.object_key != attempt.object_key
    assert not await database.transaction(lambda session: attempts.heartbeat(session, attempt))
    finished = await database.transaction(
        lambda session: attempts.finish(session, attempt, row_count=1, size_bytes=1)
    )
    assert finished is None
    await database.transaction(lambda session: attempts.fail(session, attempt, reason="late"))
    row = await sql.fetchrow("SELECT status::text, object_key, failure FROM reports")
    assert row is not None
    assert tuple(row) == ("RUNNING", second.object_key, None)


async def test_claim_waits_for_a_transaction_that_erases_a_key(
    api: Api, sql: Sql, march: None, report_context: FileContext
) -> None:
    """A report that is requested and claimed during an erasure does not have the key."""
    database = report_context.database
    is_marked, go_on = asyncio.Event(), asyncio.Event()

    async def erase(session: Any) -> None:
        await delete_user_everywhere(session, user_key=KEY, erase_key=True, actor=NO_ACTOR)
        is_marked.set()
        await go_on.wait()

    erasing = asyncio.create_task(database.transaction(erase))
    await is_marked.wait()
    await create_report(api, year=2024, month=3, withKeys=True)
    making = asyncio.create_task(make_report(report_context, 1))

    async def is_waiting() -> bool:
        return bool(
            await sql.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')"
            )
        )

    await until(is_waiting)
    go_on.set()
    await erasing
    await making
    assert KEY not in (await download(report_context, sql, 1) or KEY)
