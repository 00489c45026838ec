"""The erasure of a user's key deletes the files of exports that may have it."""

import asyncio
from typing import Any

import pytest

from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from segmentql.exports.file_kind import EXPORT_FILES
from segmentql.exports.user_deletion import delete_user_everywhere
from segmentql.principal import NO_ACTOR
from tests.conftest import Api, Sql, until
from tests.exports.queries import create_export, download, export, rows
from tests.exports.test_generation import delete_due_objects, has_object
from tests.operations import create_user, delete_user, make_segments, update_segment_members

KEY = "erase me"


@pytest.fixture
async def exported(api: Api, sql: Sql, export_context: FileContext) -> Any:
    """Make exports of `a`, which had the user, and of `b`, which did not; return their times."""
    await make_segments(api, "a", "b")
    await create_user(api, id="1", key=KEY)
    await create_user(api, id="2", key="stays")
    before = await sql.fetchval("SELECT clock_timestamp()")
    await update_segment_members(api, "a", add=[1, 2])
    await update_segment_members(api, "b", add=[2])
    await create_export(api)
    await create_export(api, "b")
    await create_export(api, asOf=before.isoformat())
    for export_id in (1, 2, 3):
        await make_export(export_context, export_id)
    return before


async def test_files_that_may_have_the_key_are_deleted(
    api: Api, sql: Sql, exported: Any, export_context: FileContext
) -> None:
    keys = [row[0] for row in await sql.fetch("SELECT object_key FROM exports ORDER BY id")]
    assert KEY in (await download((await export(api, "exp_1"))["downloadUrl"])).text
    await delete_user(api, KEY, eraseKey=True)
    failed = await export(api, "exp_1")
    assert (failed["status"], failed["failure"]) == (
        "FAILED",
        "a user's key was erased; create the export again",
    )
    assert (failed["rowCount"], failed["sizeBytes"], failed["downloadUrl"]) == (None, None, None)
    assert [(await export(api, f"exp_{n}"))["status"] for n in (2, 3)] == ["READY", "READY"]
    await delete_due_objects(export_context, sql)
    found = [await has_object(export_context.storage, key) for key in keys]
    assert found == [False, True, True]
    as_of = failed["asOf"]
    again = (await create_export(api, asOf=as_of))["export"]
    await make_export(export_context, 4)
    file = (await download((await export(api, again["id"]))["downloadUrl"])).text
    assert [(row["user_id"], row["user_key"]) for row in rows(file)] == [("1", ""), ("2", "stays")]


async def test_deletion_without_erasure_keeps_the_files(api: Api, sql: Sql, exported: Any) -> None:
    await delete_user(api, KEY)
    assert (await export(api, "exp_1"))["status"] == "READY"
    # The later erasure of the key of the deleted user deletes them.
    await delete_user(api, 1, eraseKey=True)
    assert (await export(api, "exp_1"))["status"] == "FAILED"


async def test_running_attempt_loses_its_lease(
    api: Api, sql: Sql, exported: Any, export_context: FileContext
) -> None:
    database = export_context.database
    await create_export(api)
    attempt = await database.transaction(lambda session: attempts.claim(session, EXPORT_FILES, 4))
    assert attempt is not None
    await delete_user(api, KEY, eraseKey=True)
    finished = await database.transaction(
        lambda session: attempts.finish(session, attempt, row_count=2, size_bytes=9)
    )
    assert finished is None
    assert (await export(api, "exp_4"))["status"] == "FAILED"
    assert await sql.fetchval(
        "SELECT delete_after <= now() FROM objects_to_delete WHERE object_key = $1",
        attempt.object_key,
    )


async def test_attempt_starts_after_an_erasure_that_is_not_committed(
    api: Api, sql: Sql, exported: Any, export_context: FileContext
) -> None:
    database = export_context.database
    await create_export(api)

    async def waits() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(await sql.fetchval(waiting))

    making: list[asyncio.Task[None]] = []

    async def erase(session: Any) -> None:
        await delete_user_everywhere(session, user_key=KEY, erase_key=True, actor=NO_ACTOR)
        making.append(asyncio.create_task(make_export(export_context, 4)))
        await until(waits)

    await database.transaction(erase)
    await asyncio.gather(*making)
    file = (await download((await export(api, "exp_4"))["downloadUrl"])).text
    assert KEY not in file
