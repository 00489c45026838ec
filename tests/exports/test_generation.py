"""An export is retried, given up and removed, with the real store."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import (
    find_due,
    make_export,
    remove_old_exports,
    schedule_cleanup,
    seconds_to_next,
)
from segmentql.exports.file_kind import EXPORT_FILES
from segmentql.exports.jobs import MAKE_EXPORT, REMOVE_OLD_EXPORTS
from segmentql.exports.records import ExportContent
from segmentql.metrics import EXPORTS
from segmentql.objects.actors import ObjectContext, delete_objects
from tests.back_dating import insert_membership
from tests.conftest import Api, Sql
from tests.exports.queries import create_export, export
from tests.operations import make_segments
from tests.timeline import add_members

MEMBERS = 150_000
"""The number of rows of more than 5 MiB, so that the upload is a multipart one."""

COPYING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE 'COPY%'
"""


@pytest.fixture
async def requested(api: Api, sql: Sql) -> None:
    """Request an export of a segment with one member."""
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a")
    assert (await create_export(api))["errors"] == []


async def claim(context: FileContext) -> attempts.Attempt[ExportContent] | None:
    """Claim the export 1."""
    return await context.database.transaction(
        lambda session: attempts.claim(session, EXPORT_FILES, 1)
    )


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM exports")


async def has_object(storage: Storage, key: str) -> bool:
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket, Prefix=key)
    return bool(listed.get("Contents"))


async def started_uploads(storage: Storage) -> list[str]:
    client = await storage._s3.client()
    page = await client.list_multipart_uploads(Bucket=storage._bucket)
    return [upload["Key"] for upload in page.get("Uploads", [])]


async def delete_due_objects(context: FileContext, sql: Sql) -> None:
    """Delete the discarded objects, and those whose upload took too long."""
    await sql.execute(
        "UPDATE objects_to_delete SET next_attempt_at = now(), writable_until = now()"
    )
    await delete_objects(ObjectContext(context.database, context.storage))
    assert await sql.fetchval("SELECT count(*) FROM objects_to_delete") == 0


async def test_rejected_upload_is_retried_and_then_reported(
    api: Api, sql: Sql, requested: None, export_context: FileContext, sent: list[Message]
) -> None:
    settings = export_context.database._settings.model_copy(update={"s3_secret_key": "wrong"})
    storage = Storage(settings)
    failing = replace(export_context, storage=storage)
    failures = EXPORTS.labels("failed")._value.get()
    for number in range(1, attempts.MAX_STORE_REJECTIONS):
        await make_export(failing, 1)
        waiting = await row(sql)
        assert (waiting["status"], waiting["attempts"], waiting["failure"]) == (
            "QUEUED",
            number,
            None,
        )
        await make_export(failing, 1)  # not due yet
        assert (await row(sql))["attempts"] == number
        await sql.execute("UPDATE exports SET next_attempt_at = now()")
    assert [m.delay_seconds for m in sent if m.job == MAKE_EXPORT] == [1, 2, 4, 8]
    await make_export(failing, 1)
    failed = await export(api, "exp_1")
    assert (failed["status"], failed["failure"], failed["downloadUrl"]) == (
        "FAILED",
        "the object store rejects the secret key",
        None,
    )
    assert failed["finishedAt"]
    assert EXPORTS.labels("failed")._value.get() == failures + 1
    await storage.close()


@pytest.mark.slow  # It stores 150,000 members.
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
async def test_cancelled_attempt_leaves_no_data_and_is_repeated(
    api: Api, sql: Sql, export_context: FileContext, ending: str
) -> None:
    await make_segments(api, "a")
    await add_members(sql, 1, MEMBERS)
    await create_export(api, gzip=ending == ".csv.gz")
    making = asyncio.create_task(make_export(export_context, 1))
    while not await sql.fetchval(COPYING):
        assert not making.done()
    first_key = (await row(sql))["object_key"]
    assert first_key.endswith(ending)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    waiting = await row(sql)
    assert (waiting["status"], waiting["attempts"], waiting["object_key"]) == ("QUEUED", 1, None)
    await sql.execute("UPDATE exports SET next_attempt_at = now()")
    await make_export(export_context, 1)
    ready = await row(sql)
    assert (ready["status"], ready["attempts"], ready["row_count"]) == ("READY", 2, MEMBERS)
    await delete_due_objects(export_context, sql)
    assert not await has_object(export_context.storage, first_key)
    assert await has_object(export_context.storage, ready["object_key"])
    assert await started_uploads(export_context.storage) == []


async def test_file_of_a_killed_worker_is_deleted_and_made_again(
    sql: Sql, requested: None, export_context: FileContext
) -> None:
    attempt = await claim(export_context)
    assert attempt is not None
    client = await export_context.storage._s3.client()
    await client.put_object(
        Bucket=export_context.storage._bucket, Key=attempt.object_key, Body=b"half"
    )
    await make_export(export_context, 1)  # While the attempt may be alive, nothing happens.
    assert (await row(sql))["attempts"] == 1
    await sql.execute("UPDATE exports SET next_attempt_at = now() - interval '1 minute'")
    assert await find_due(export_context.database) == [Message(MAKE_EXPORT, (1,))]
    await make_export(export_context, 1)
    ready = await row(sql)
    assert (ready["status"], ready["attempts"], ready["row_count"]) == ("READY", 2, 1)
    assert ready["object_key"] != attempt.object_key
    await delete_due_objects(export_context, sql)
    assert not await has_object(export_context.storage, attempt.object_key)
    assert await has_object(export_context.storage, ready["object_key"])


async def test_attempt_that_lost_its_lease_publishes_nothing(
    sql: Sql, requested: None, export_context: FileContext
) -> None:
    database = export_context.database
    first = await claim(export_context)
    await sql.execute("UPDATE exports SET next_attempt_at = now() - interval '1 minute'")
    second = await claim(export_context)
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (1, 2)
    assert not await database.transaction(lambda session: attempts.heartbeat(session, first))
    assert (
        await database.transaction(
            lambda session: attempts.finish(session, first, row_count=1, size_bytes=1)
        )
        is None
    )
    assert not await database.transaction(
        lambda session: attempts.fail(session, first, reason="too late")
    )
    running = await row(sql)
    assert (running["status"], running["object_key"]) == ("RUNNING", second.object_key)
    assert await database.transaction(lambda session: attempts.heartbeat(session, second))


async def test_export_fails_if_every_worker_dies(
    api: Api, sql: Sql, requested: None, export_context: FileContext
) -> None:
    for _ in range(attempts.MAX_ATTEMPTS):
        await claim(export_context)
        await sql.execute("UPDATE exports SET next_attempt_at = now() - interval '1 minute'")
    await make_export(export_context, 1)
    failed = await export(api, "exp_1")
    assert (failed["status"], failed["failure"]) == (
        "FAILED",
        "the worker died in each of 8 attempts",
    )
    assert await seconds_to_next(export_context.database) is None


async def test_scheduler_finds_an_export_whose_message_was_lost(
    sql: Sql, requested: None, export_context: FileContext
) -> None:
    database = export_context.database
    assert await find_due(database) == []  # its message was sent
    seconds = await seconds_to_next(database)
    assert seconds is not None
    assert seconds <= 1
    await sql.execute("UPDATE exports SET next_attempt_at = now() - interval '2 s'")
    assert await find_due(database) == [Message(MAKE_EXPORT, (1,))]
    await make_export(export_context, 1)
    assert await find_due(database) == []
    assert await seconds_to_next(database) is None


async def test_old_exports_and_files_are_removed(
    api: Api, sql: Sql, requested: None, export_context: FileContext
) -> None:
    await create_export(api)
    for export_id in (1, 2):
        await make_export(export_context, export_id)
    assert await schedule_cleanup(export_context.database) == [Message(REMOVE_OLD_EXPORTS)]
    for export_id, age in (
        (1, timedelta(days=30, seconds=1)),
        (2, timedelta(days=29, hours=23)),
    ):
        await sql.execute(
            "UPDATE exports SET created_at = now() - $1::interval WHERE id = $2", age, export_id
        )
    removed_key, kept_key = (
        item["object_key"] for item in await sql.fetch("SELECT object_key FROM exports ORDER BY id")
    )
    await remove_old_exports(export_context)
    await delete_due_objects(export_context, sql)
    assert await export(api, "exp_1") is None
    assert (await export(api, "exp_2"))["status"] == "READY"
    assert not await has_object(export_context.storage, removed_key)
    assert await has_object(export_context.storage, kept_key)
