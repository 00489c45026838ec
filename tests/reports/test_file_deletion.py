"""The files of removed reports, and of attempts that were not published, are deleted."""

from dataclasses import replace
from datetime import timedelta

import pytest

from segmentql.adapters.jobs import Message
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext, store_and_publish
from segmentql.errors import StoreRejected, StoreUnavailable
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.reports.actors import make_report, remove_old_reports, schedule_cleanup, store_file
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.jobs import REMOVE_OLD_REPORTS
from tests.conftest import Api, Sql
from tests.files import upload_file
from tests.objects.queries import pass_time
from tests.reports.generation_helpers import claim, keys, misconfigured_store, request_report, row
from tests.reports.queries import report


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
