"""Objects without a reference are deleted from the store, also after failures."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from segmentql.adapters.jobs import Message
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.local import LocalServers
from segmentql.objects import service
from segmentql.objects.actors import ObjectContext, delete_objects, find_due
from segmentql.objects.jobs import DELETE_OBJECTS
from segmentql.settings import Settings
from tests.conftest import Sql, suspended, until
from tests.files import pending_uploads, upload_file
from tests.objects.queries import pass_time

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

QUICK = StoreTimeouts(connect_seconds=0.2, read_seconds=0.2, attempts=1)


@pytest.fixture
def key() -> str:
    return f"tests/{uuid4()}"


async def begin_upload(context: ObjectContext, key: str, *, max_seconds: float = 60) -> None:
    await context.database.transaction(
        lambda session: service.begin_upload(session, key, max_seconds=max_seconds)
    )


async def keep_upload(context: ObjectContext, key: str) -> bool:
    return await context.database.transaction(lambda session: service.keep_upload(session, key))


async def discard(context: ObjectContext, keys: Sequence[str], **options: float) -> None:
    await context.database.transaction(lambda session: service.discard(session, keys, **options))


async def is_stored(context: ObjectContext, key: str) -> bool:
    client = await context.storage._s3.client()
    listed = await client.list_objects_v2(Bucket=context.storage._bucket, Prefix=key)
    return "Contents" in listed


async def rows(sql: Sql) -> list[Any]:
    return [
        row["object_key"]
        for row in await sql.fetch("SELECT object_key FROM objects_to_delete ORDER BY 1")
    ]


async def test_upload_without_a_reference_is_deleted_when_its_time_has_passed(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    await begin_upload(object_context, key, max_seconds=3600)
    await upload_file(object_context.storage, key)
    await pass_time(sql, 3500)
    assert await find_due(object_context.database) == []
    await delete_objects(object_context)
    assert await is_stored(object_context, key)
    await pass_time(sql, 100)
    assert await find_due(object_context.database) == [Message(DELETE_OBJECTS)]
    await delete_objects(object_context)
    assert not await is_stored(object_context, key)
    assert await rows(sql) == []
    assert await find_due(object_context.database) == []


async def test_kept_upload_stays(object_context: ObjectContext, sql: Sql, key: str) -> None:
    await begin_upload(object_context, key)
    await upload_file(object_context.storage, key)
    assert await keep_upload(object_context, key)
    assert await rows(sql) == []
    await delete_objects(object_context)
    assert await is_stored(object_context, key)


@pytest.mark.parametrize("state", ["claimed", "deleted"])
async def test_upload_is_not_kept_after_its_deletion_began(
    object_context: ObjectContext, sql: Sql, key: str, state: str
) -> None:
    await begin_upload(object_context, key, max_seconds=60)
    await discard(object_context, [key])
    if state == "deleted":
        await delete_objects(object_context)
    else:
        await object_context.database.transaction(service.claim)
    assert not await keep_upload(object_context, key)
    assert await rows(sql) == [key]  # until the time of the upload has passed


async def test_discarded_upload_is_not_kept(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    await begin_upload(object_context, key)
    await discard(object_context, [key])
    assert not await keep_upload(object_context, key)
    assert await rows(sql) == [key]


async def test_discarded_object_is_deleted_after_the_commit(
    object_context: ObjectContext, sql: Sql, sent: list[Message], key: str
) -> None:
    await upload_file(object_context.storage, key)
    await discard(object_context, [])
    assert sent == []
    await discard(object_context, [key, f"{key}/missing"])
    assert sent == [Message(DELETE_OBJECTS)]
    assert await rows(sql) == [key, f"{key}/missing"]
    await delete_objects(object_context)
    assert not await is_stored(object_context, key)
    assert await rows(sql) == []


async def test_object_of_a_rolled_back_transaction_stays(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    async def discard_and_fail(session: Any) -> None:
        await service.discard(session, [key])
        raise LookupError

    with pytest.raises(LookupError):
        await object_context.database.transaction(discard_and_fail)
    assert await rows(sql) == []


async def test_object_that_is_written_after_its_deletion_is_deleted_again(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    await discard(object_context, [key], max_write_seconds=3600)
    await delete_objects(object_context)
    await upload_file(object_context.storage, key)
    await pass_time(sql, 3500)
    await delete_objects(object_context)
    assert await is_stored(object_context, key)
    await pass_time(sql, 100)
    await delete_objects(object_context)
    assert not await is_stored(object_context, key)
    assert await rows(sql) == []


async def test_unfinished_upload_of_a_discarded_object_is_aborted(
    object_context: ObjectContext, s3: "S3Client", settings: Settings, key: str
) -> None:
    await s3.create_multipart_upload(Bucket=settings.s3_bucket, Key=key)
    assert await pending_uploads(s3, settings) == [key]
    await discard(object_context, [key])
    await delete_objects(object_context)
    assert await pending_uploads(s3, settings) == []


async def test_object_that_is_discarded_during_its_deletion_is_deleted_again(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    database = object_context.database
    await discard(object_context, [key, f"{key}/2"])
    claimed = await database.transaction(service.claim)
    assert sorted(item.object_key for item in claimed) == [key, f"{key}/2"]
    await discard(object_context, [key])
    await database.transaction(lambda session: service.confirm(session, claimed))
    assert await rows(sql) == [key]
    assert await find_due(database) == [Message(DELETE_OBJECTS)]


async def test_wait_after_a_failed_deletion_doubles(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    await discard(object_context, [key])
    for seconds in (15, 30, 60, 120, 240, 240):
        await sql.execute("UPDATE objects_to_delete SET next_attempt_at = now()")
        (claimed,) = await object_context.database.transaction(service.claim)
        wait = claimed.next_attempt_at - await sql.fetchval("SELECT clock_timestamp()")
        assert seconds - 5 < wait.total_seconds() <= seconds
        assert await find_due(object_context.database) == []


async def test_failed_deletion_is_logged_once_and_repeated(
    object_context: ObjectContext, sql: Sql, settings: Settings, key: str
) -> None:
    await upload_file(object_context.storage, key)
    storage = Storage(settings.model_copy(update={"s3_secret_key": "wrong"}))
    await discard(object_context, [key, f"{key}/2"])
    with capture_logs() as lines:
        await delete_objects(ObjectContext(object_context.database, storage))
    await storage.close()
    assert lines == [
        {
            "event": "objects_not_deleted",
            "log_level": "warning",
            "objects": 2,
            "reason": "the object store rejects the secret key",
        }
    ]
    assert await rows(sql) == [key, f"{key}/2"]
    await pass_time(sql, service.RETRY_SECONDS)
    await delete_objects(object_context)
    assert not await is_stored(object_context, key)
    assert await rows(sql) == []


@pytest.mark.slow  # it waits for timeouts
async def test_deletion_from_a_store_that_hangs_holds_no_connection(
    object_context: ObjectContext, servers: LocalServers, sql: Sql, settings: Settings, key: str
) -> None:
    """The objects after the first ones that fail are not tried, and other runs do not wait."""
    storage = Storage(settings, replace(QUICK, read_seconds=1))
    await storage.check()
    context = ObjectContext(object_context.database, storage)
    await discard(context, [f"{key}/{number:03}" for number in range(service.BATCH_OBJECTS)])
    with suspended(servers.store):
        deleting = asyncio.create_task(delete_objects(context))

        async def has_begun() -> bool:
            return bool(await sql.fetchval("SELECT bool_and(attempts = 1) FROM objects_to_delete"))

        await until(has_begun)
        assert context.database.pool_in_use() == 0
        await discard(context, [key])
        await delete_objects(context)
        assert await sql.fetchval("SELECT count(*) FROM objects_to_delete WHERE attempts = 0") == 1
        async with asyncio.timeout(5):  # all of them would take 13 s
            await deleting
    assert len(await rows(sql)) == service.BATCH_OBJECTS + 1
    await storage.close()


async def test_cancelled_deletion_is_repeated(
    object_context: ObjectContext, servers: LocalServers, sql: Sql, key: str
) -> None:
    await upload_file(object_context.storage, key)
    await discard(object_context, [key])
    with suspended(servers.store):
        deleting = asyncio.create_task(delete_objects(object_context))

        async def has_begun() -> bool:
            return bool(await sql.fetchval("SELECT attempts FROM objects_to_delete"))

        await until(has_begun)
        deleting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deleting
    assert await rows(sql) == [key]
    await pass_time(sql, service.RETRY_SECONDS)
    await delete_objects(object_context)
    assert not await is_stored(object_context, key)
    assert await rows(sql) == []


@pytest.mark.slow  # for the number of objects
async def test_one_run_deletes_more_objects_than_a_batch(
    object_context: ObjectContext, sql: Sql, key: str
) -> None:
    last = f"{key}/last"
    await upload_file(object_context.storage, last)
    keys = [f"{key}/{number:03}" for number in range(service.BATCH_OBJECTS)]
    await discard(object_context, keys)
    await discard(object_context, [last])
    await delete_objects(object_context)
    assert await rows(sql) == []
    assert not await is_stored(object_context, last)


async def test_overdue_objects_are_counted(object_context: ObjectContext, sql: Sql) -> None:
    async def overdue() -> tuple[int, float]:
        async with object_context.database.read() as session:
            found = await service.read_overdue(session)
        return found.number, found.oldest_seconds

    assert await overdue() == (0, 0)
    await begin_upload(object_context, "upload in progress")
    assert await overdue() == (0, 0)
    await discard(object_context, ["a"])
    await pass_time(sql, 50)
    await discard(object_context, ["b"])
    await object_context.database.transaction(
        service.claim
    )  # the deletion is in progress or failed
    number, oldest_seconds = await overdue()
    assert number == 2
    assert 50 <= oldest_seconds < 60
