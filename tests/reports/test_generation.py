"""A report is generated, retried and given up, with the real store."""

import asyncio
from dataclasses import replace

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.reports.actors import find_due, make_report, seconds_to_next
from segmentql.reports.jobs import MAKE_REPORT
from tests.conftest import Api, Sql
from tests.reports.conftest import ROWS
from tests.reports.generation_helpers import claim, keys, misconfigured_store, request_report, row
from tests.reports.queries import report


async def test_large_report_is_uploaded_in_parts(
    api: Api, sql: Sql, many_joins: None, report_context: FileContext
) -> None:
    await request_report(api)
    await make_report(report_context, 1)
    stored_report = await row(sql)
    assert (stored_report["status"], stored_report["row_count"], stored_report["attempts"]) == (
        "READY",
        ROWS,
        1,
    )
    assert stored_report["size_bytes"] > 12_000_000


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
async def test_rejected_upload_is_retried_and_then_reported(
    api: Api,
    sql: Sql,
    report_context: FileContext,
    sent: list[Message],
    case: tuple[dict[str, str], str],
) -> None:
    changes, reason = case
    storage = misconfigured_store(report_context, **changes)
    report_context = replace(report_context, storage=storage)
    await request_report(api)
    for number in range(1, attempts.MAX_STORE_REJECTIONS):
        await make_report(report_context, 1)
        stored_report = await row(sql)
        assert (stored_report["status"], stored_report["attempts"], stored_report["failure"]) == (
            "QUEUED",
            number,
            None,
        )
        # the retry interval has passed
        await sql.execute("UPDATE reports SET next_attempt_at = now()")
    delays = [message.delay_seconds for message in sent if message.job == MAKE_REPORT]
    assert delays == [1, 2, 4, 8]
    await make_report(report_context, 1)
    failed = await report(api, "rep_1")
    assert (failed["status"], failed["failure"], failed["downloadUrl"]) == ("FAILED", reason, None)
    assert failed["finishedAt"]
    await storage.close()


async def test_failed_attempt_is_not_retried_early(
    api: Api, sql: Sql, report_context: FileContext
) -> None:
    storage = misconfigured_store(report_context, s3_bucket="no-such-bucket")
    report_context = replace(report_context, storage=storage)
    await request_report(api)
    await make_report(report_context, 1)
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 1
    await storage.close()


async def test_cancelled_attempt_leaves_no_data_and_is_repeated(
    api: Api, sql: Sql, many_joins: None, report_context: FileContext
) -> None:
    await request_report(api)
    before = await keys(report_context.storage)
    generating = asyncio.create_task(make_report(report_context, 1))
    while not await _has_started_upload(report_context.storage):
        assert not generating.done()
    generating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await generating
    assert await keys(report_context.storage) == before
    assert not await _has_started_upload(report_context.storage)
    stored_report = await row(sql)
    assert (stored_report["status"], stored_report["attempts"]) == ("QUEUED", 1)
    await sql.execute("UPDATE reports SET next_attempt_at = now()")
    await make_report(report_context, 1)
    assert (await row(sql))["status"] == "READY"


async def _has_started_upload(storage: Storage) -> bool:
    client = await storage._s3.client()
    page = await client.list_multipart_uploads(Bucket=storage._bucket)
    return bool(page.get("Uploads"))


async def test_upload_of_a_dead_worker_is_aborted(
    api: Api, sql: Sql, many_joins: None, object_context: ObjectContext
) -> None:
    report_context = FileContext(object_context.database, object_context.storage, 30)
    await request_report(api)
    attempt = await claim(report_context)
    assert attempt is not None
    client = await report_context.storage._s3.client()
    await client.create_multipart_upload(
        Bucket=report_context.storage._bucket,
        Key=attempt.object_key,
    )
    # While the attempt may be alive, no other worker takes the report.
    await make_report(report_context, 1)
    assert (await row(sql))["attempts"] == 1
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    assert await find_due(report_context.database) == [Message(MAKE_REPORT, (1,))]
    await make_report(report_context, 1)
    stored_report = await row(sql)
    assert (stored_report["status"], stored_report["attempts"], stored_report["row_count"]) == (
        "READY",
        2,
        ROWS,
    )
    assert stored_report["object_key"] != attempt.object_key
    await delete_objects(object_context)
    assert not await _has_started_upload(report_context.storage)


async def test_attempt_that_lost_its_lease_publishes_nothing(
    api: Api, sql: Sql, report_context: FileContext
) -> None:
    await request_report(api)
    first = await claim(report_context)
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    second = await claim(report_context)
    assert first is not None
    assert second is not None
    assert second.number == 2
    late_result = await report_context.database.transaction(
        lambda session: attempts.finish(session, first, row_count=1, size_bytes=1)
    )
    assert late_result is None
    assert not await report_context.database.transaction(
        lambda session: attempts.heartbeat(session, first)
    )
    await report_context.database.transaction(
        lambda session: attempts.fail(session, first, reason="too late")
    )
    stored_report = await row(sql)
    assert (stored_report["status"], stored_report["object_key"]) == ("RUNNING", second.object_key)


async def test_report_fails_if_every_worker_dies(
    api: Api, sql: Sql, report_context: FileContext
) -> None:
    await request_report(api)
    for _ in range(attempts.MAX_ATTEMPTS):
        await claim(report_context)
        await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    failed = await report(api, "rep_1")
    assert (failed["status"], failed["failure"]) == (
        "FAILED",
        "the worker died in each of 8 attempts",
    )
    # The objects of all attempts are deleted.
    discarded = "SELECT count(*) FROM objects_to_delete WHERE delete_after < now()"
    assert await sql.fetchval(discarded) == attempts.MAX_ATTEMPTS


async def test_report_with_a_lost_message_is_found(
    api: Api, sql: Sql, report_context: FileContext
) -> None:
    await request_report(api)
    assert await find_due(report_context.database) == []  # its message was sent
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '2 s'")
    assert await find_due(report_context.database) == [Message(MAKE_REPORT, (1,))]
    await make_report(report_context, 1)
    assert await find_due(report_context.database) == []


async def test_scheduler_gets_the_time_of_the_next_due_report(
    api: Api, sql: Sql, report_context: FileContext
) -> None:
    assert await seconds_to_next(report_context.database) is None
    await request_report(api)
    seconds = await seconds_to_next(report_context.database)
    assert seconds is not None
    assert seconds <= 1
    await claim(report_context)
    seconds = await seconds_to_next(report_context.database)
    assert seconds is not None
    assert 1 < seconds <= attempts.LEASE_SECONDS + 1
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    assert await seconds_to_next(report_context.database) is None
