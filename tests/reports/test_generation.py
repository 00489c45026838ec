"""How a report is made, tried again, given up and removed, against the real store."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreRejected
from segmentql.reports import generation
from segmentql.reports.actors import (
    ReportContext,
    find_due,
    make_report,
    remove_old_reports,
    schedule_cleanup,
    seconds_to_next,
)
from segmentql.reports.jobs import MAKE_REPORT, REMOVE_OLD_REPORTS
from tests.conftest import Api, Sql
from tests.reports.conftest import ROWS
from tests.reports.queries import create_report, report


async def ask(api: Api) -> None:
    assert (await create_report(api, year=2024, month=3))["errors"] == []


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM reports")


async def keys(storage: Storage) -> set[str]:
    """What the store shows; the run's other reports are there, too."""
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {found["Key"] for found in listed.get("Contents", [])}


def elsewhere(report_context: ReportContext, **changes: Any) -> Storage:
    """The store as somebody sees it whose settings are other than the desk's."""
    settings = report_context.database._settings
    return Storage(settings.model_copy(update=changes))


async def test_a_large_report_goes_in_parts(
    api: Api, sql: Sql, many_joins: None, report_context: ReportContext
) -> None:
    await ask(api)
    await make_report(report_context, 1)
    made = await row(sql)
    assert (made["status"], made["row_count"], made["attempts"]) == ("READY", ROWS, 1)
    assert made["size_bytes"] > 12_000_000


@pytest.mark.parametrize(
    "case",
    [
        ({"s3_secret_key": "wrong"}, "the object store rejects the secret key"),
        ({"s3_access_key": "wrong"}, "the object store does not know the access key"),
        (
            {"s3_bucket": "no-such-bucket"},
            "the object store has no such bucket: run `segmentql bucket`",
        ),
    ],
)
async def test_what_the_store_refuses_is_tried_again_and_then_told_to_people(
    api: Api,
    sql: Sql,
    report_context: ReportContext,
    sent: list[Message],
    case: tuple[dict[str, str], str],
) -> None:
    changes, reason = case
    storage = elsewhere(report_context, **changes)
    report_context = replace(report_context, storage=storage)
    await ask(api)
    for attempts in range(1, generation.MAX_STORE_REJECTIONS):
        await make_report(report_context, 1)
        made = await row(sql)
        assert (made["status"], made["attempts"], made["failure"]) == ("QUEUED", attempts, None)
        await sql.execute("UPDATE reports SET next_attempt_at = now()")  # the wait is over
    delays = [message.delay_seconds for message in sent if message.job == MAKE_REPORT]
    assert delays == [1, 2, 4, 8]
    await make_report(report_context, 1)
    told = await report(api, "rep_1")
    assert (told["status"], told["failure"], told["downloadUrl"]) == ("FAILED", reason, None)
    assert told["finishedAt"]
    await storage.close()


async def test_a_try_that_failed_is_not_repeated_before_its_time(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    storage = elsewhere(report_context, s3_bucket="no-such-bucket")
    report_context = replace(report_context, storage=storage)
    await ask(api)
    await make_report(report_context, 1)
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 1
    await storage.close()


async def test_a_cancelled_try_leaves_nothing_and_is_made_up_for(
    api: Api, sql: Sql, many_joins: None, report_context: ReportContext
) -> None:
    await ask(api)
    before = await keys(report_context.storage)
    making_it = asyncio.create_task(make_report(report_context, 1))
    while not await _upload_under_way(report_context.storage):
        assert not making_it.done()
    making_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making_it
    assert await keys(report_context.storage) == before
    assert not await _upload_under_way(report_context.storage)
    made = await row(sql)
    assert (made["status"], made["attempts"]) == ("QUEUED", 1)
    await sql.execute("UPDATE reports SET next_attempt_at = now()")
    await make_report(report_context, 1)
    assert (await row(sql))["status"] == "READY"


async def _upload_under_way(storage: Storage) -> bool:
    client = await storage._s3.client()
    page = await client.list_multipart_uploads(Bucket=storage._bucket)
    return bool(page.get("Uploads"))


async def test_what_a_dead_worker_left_is_taken_back_by_the_next_try(
    api: Api, sql: Sql, many_joins: None, report_context: ReportContext
) -> None:
    await ask(api)
    attempt = await report_context.database.transaction(
        lambda session: generation.claim(session, 1)
    )
    assert attempt is not None
    client = await report_context.storage._s3.client()
    await client.create_multipart_upload(
        Bucket=report_context.storage._bucket,
        Key=attempt.object_key,
    )
    # While it may be alive, nobody else takes the report.
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 1
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    assert await find_due(report_context.database) == [Message(MAKE_REPORT, (1,))]
    await make_report(report_context, 1)
    made = await row(sql)
    assert (made["status"], made["attempts"], made["row_count"]) == ("READY", 2, ROWS)
    assert made["object_key"] != attempt.object_key
    assert not await _upload_under_way(report_context.storage)


async def test_who_lost_the_report_makes_nothing_known(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    await ask(api)
    first = await report_context.database.transaction(lambda session: generation.claim(session, 1))
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    second = await report_context.database.transaction(lambda session: generation.claim(session, 1))
    assert first is not None
    assert second is not None
    assert second.number == 2
    late = await report_context.database.transaction(
        lambda session: generation.finish(session, first, row_count=1, size_bytes=1)
    )
    assert late is None
    assert not await report_context.database.transaction(
        lambda session: generation.heartbeat(session, first)
    )
    await report_context.database.transaction(
        lambda session: generation.fail(session, first, reason="too late")
    )
    made = await row(sql)
    assert (made["status"], made["object_key"]) == ("RUNNING", second.object_key)


async def test_a_worker_that_dies_every_time_is_a_failure(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    await ask(api)
    for _ in range(generation.MAX_ATTEMPTS):
        await report_context.database.transaction(lambda session: generation.claim(session, 1))
        await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    told = await report(api, "rep_1")
    assert (told["status"], told["failure"]) == ("FAILED", "the worker died in each of 8 attempts")


async def test_a_report_whose_message_was_lost_is_found(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    await ask(api)
    assert await find_due(report_context.database) == []  # its message is on the way
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '2 s'")
    assert await find_due(report_context.database) == [Message(MAKE_REPORT, (1,))]
    await make_report(report_context, 1)
    assert await find_due(report_context.database) == []


async def test_the_scheduler_learns_when_a_report_is_due(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    assert await seconds_to_next(report_context.database) is None
    await ask(api)
    seconds = await seconds_to_next(report_context.database)
    assert seconds is not None
    assert seconds <= 1
    await report_context.database.transaction(lambda session: generation.claim(session, 1))
    seconds = await seconds_to_next(report_context.database)
    assert seconds is not None
    assert 1 < seconds <= generation.LEASE_SECONDS + 1
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    assert await seconds_to_next(report_context.database) is None


async def test_old_reports_and_their_files_are_removed(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    for report_id in (1, 2):
        await ask(api)
        await make_report(report_context, report_id)
    assert await schedule_cleanup(report_context.database) == [Message(REMOVE_OLD_REPORTS)]
    await sql.execute(
        "UPDATE reports SET created_at = now() - $1::interval WHERE id = 1",
        timedelta(days=30, seconds=1),
    )
    await sql.execute(
        "UPDATE reports SET created_at = now() - $1::interval WHERE id = 2",
        timedelta(days=29, hours=23),
    )
    removed_key = await sql.fetchval("SELECT object_key FROM reports WHERE id = 1")
    assert removed_key in await keys(report_context.storage)
    await remove_old_reports(report_context)
    assert await report(api, "rep_1") is None
    kept = await report(api, "rep_2")
    assert kept["status"] == "READY"
    ((kept_key,),) = await sql.fetch("SELECT object_key FROM reports")
    assert kept_key in await keys(report_context.storage)
    assert removed_key not in await keys(report_context.storage)


async def test_what_cannot_be_removed_is_not_forgotten(
    api: Api, sql: Sql, report_context: ReportContext
) -> None:
    await ask(api)
    await make_report(report_context, 1)
    await sql.execute("UPDATE reports SET created_at = now() - interval '31 days'")
    storage = elsewhere(report_context, s3_secret_key="wrong")
    with pytest.raises(StoreRejected):
        await remove_old_reports(replace(report_context, storage=storage))
    assert await sql.fetchval("SELECT count(*) FROM reports") == 1
    await storage.close()
