"""A report is generated, retried, given up and removed, with the real store."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext, store_and_publish
from segmentql.errors import StoreRejected, StoreUnavailable
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.reports.actors import (
    find_due,
    make_report,
    remove_old_reports,
    schedule_cleanup,
    seconds_to_next,
    store_file,
)
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import MAKE_REPORT, REMOVE_OLD_REPORTS
from segmentql.reports.records import ReportScope
from tests.conftest import Api, Sql
from tests.files import upload_file
from tests.objects.queries import pass_time
from tests.reports.conftest import ROWS
from tests.reports.queries import create_report, report


async def request_report(api: Api) -> None:
    assert (await create_report(api, year=2024, month=3))["errors"] == []


async def claim(context: FileContext) -> attempts.Attempt[ReportScope] | None:
    """Claim the report 1."""
    return await context.database.transaction(
        lambda session: attempts.claim(session, REPORT_FILES, 1)
    )


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM reports")


async def keys(storage: Storage) -> set[str]:
    """Return the keys of the store, which include other reports of the test run."""
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {item["Key"] for item in listed.get("Contents", [])}


def misconfigured_store(report_context: FileContext, **changes: Any) -> Storage:
    """Return the store with settings that differ from those of the report context."""
    settings = report_context.database._settings
    return Storage(settings.model_copy(update=changes))


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


async def test_old_reports_and_files_are_removed(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    for report_id in (1, 2):
        await request_report(api)
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
    await delete_objects(object_context)
    kept_report = await report(api, "rep_2")
    assert kept_report["status"] == "READY"
    ((kept_key,),) = await sql.fetch("SELECT object_key FROM reports")
    assert kept_key in await keys(report_context.storage)
    assert removed_key not in await keys(report_context.storage)


async def test_file_of_a_removed_report_is_deleted_after_a_store_failure(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    await make_report(report_context, 1)
    object_key = (await row(sql))["object_key"]
    await sql.execute("UPDATE reports SET created_at = now() - interval '31 days'")
    storage = misconfigured_store(report_context, s3_secret_key="wrong")
    with pytest.raises(StoreRejected):  # of the unfinished uploads
        await remove_old_reports(replace(report_context, storage=storage))
    assert await sql.fetchval("SELECT count(*) FROM reports") == 0
    await delete_objects(ObjectContext(report_context.database, storage))
    await storage.close()
    assert object_key in await keys(report_context.storage)
    await sql.execute("UPDATE objects_to_delete SET next_attempt_at = now()")
    await delete_objects(object_context)
    assert object_key not in await keys(report_context.storage)


async def test_late_file_of_an_attempt_without_lease_is_deleted(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    late = await claim(report_context)
    assert late is not None
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    await delete_objects(object_context)  # before the upload
    await store_and_publish(report_context, late, store_file)
    assert late.object_key in await keys(report_context.storage)
    await delete_objects(object_context)
    stored_report = await row(sql)
    assert (stored_report["status"], stored_report["attempts"]) == ("READY", 2)
    left = await keys(report_context.storage)
    assert late.object_key not in left
    assert stored_report["object_key"] in left


async def test_file_of_an_attempt_that_died_after_a_late_upload_is_deleted(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    late = await claim(report_context)
    assert late is not None
    await sql.execute("UPDATE reports SET next_attempt_at = now() - interval '1 minute'")
    await make_report(report_context, 1)
    await delete_objects(object_context)  # before the upload
    await upload_file(report_context.storage, late.object_key)
    await pass_time(sql, REPORT_FILES.max_upload_seconds)
    await delete_objects(object_context)
    left = await keys(report_context.storage)
    assert late.object_key not in left
    assert (await row(sql))["object_key"] in left
    assert await sql.fetchval("SELECT count(*) FROM objects_to_delete") == 0


async def test_file_of_a_worker_that_died_before_the_commit_is_deleted_without_another_attempt(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    attempt = await claim(report_context)
    assert attempt is not None
    await upload_file(report_context.storage, attempt.object_key)
    await sql.execute("DELETE FROM reports")
    await pass_time(sql, REPORT_FILES.max_upload_seconds)
    await delete_objects(object_context)
    assert attempt.object_key not in await keys(report_context.storage)


async def test_file_whose_deletion_began_is_not_published(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    attempt = await claim(report_context)
    assert attempt is not None
    await pass_time(sql, REPORT_FILES.max_upload_seconds)
    await delete_objects(object_context)
    with pytest.raises(StoreUnavailable, match="the upload took too long"):
        await store_and_publish(report_context, attempt, store_file)
    assert (await row(sql))["status"] == "RUNNING"
    await report_context.database.transaction(
        lambda session: attempts.fail(session, attempt, reason="the upload took too long")
    )
    await delete_objects(object_context)
    assert attempt.object_key not in await keys(report_context.storage)


async def test_file_stays_if_the_outcome_of_its_publication_was_unknown(
    api: Api, sql: Sql, report_context: FileContext, object_context: ObjectContext
) -> None:
    await request_report(api)
    attempt = await claim(report_context)
    assert attempt is not None
    await store_and_publish(report_context, attempt, store_file)
    # The connection was lost after the commit, so the worker records a failure.
    assert not await report_context.database.transaction(
        lambda session: attempts.fail(session, attempt, reason="the database became unavailable")
    )
    await delete_objects(object_context)
    assert await sql.fetchval("SELECT count(*) FROM objects_to_delete") == 0
    assert attempt.object_key in await keys(report_context.storage)
    assert (await row(sql))["status"] == "READY"
