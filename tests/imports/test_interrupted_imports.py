"""Attempts that lose their lease change nothing, and failures are recorded."""

import asyncio

import pytest

from segmentql.adapters.storage import Storage
from segmentql.csv_files.heartbeats import run_with_heartbeats
from segmentql.imports import actors, attempts, staging
from segmentql.imports.actors import advance_import
from segmentql.imports.reading import stage_list
from segmentql.imports.reads import imports_by_id
from segmentql.imports.row_parser import Row
from tests.conftest import Api, Sql
from tests.imports.lists import CANCEL, Imports, counts, id_list
from tests.operations import make_segments
from tests.rollouts.helpers import members

ROWS = [Row(line, str(line), line, None, None, None) for line in (1, 2, 3)]


async def claim(imports: Imports, sql: Sql) -> attempts.Attempt:
    """Claim import 1 after the end of the lease."""
    await sql.execute("UPDATE imports SET next_attempt_at = now()")
    database = imports.context.database
    attempt = await database.transaction(lambda session: attempts.claim(session, 1))
    assert attempt is not None
    return attempt


async def test_attempt_without_its_lease_neither_stores_nor_deletes_rows(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    await imports.start(b"1\n2\n3\n")
    context, database = imports.context, imports.context.database
    first = await claim(imports, sql)
    second = await claim(imports, sql)
    await database.transaction(lambda session: staging.stage_rows(session, second, ROWS))
    async with database.read() as session:
        record = (await imports_by_id(session, [1]))[1]
    with pytest.raises(attempts.LeaseLost):
        await stage_list(database, context.storage, first, record)
    with pytest.raises(attempts.LeaseLost):
        await database.transaction(lambda session: staging.stage_rows(session, first, ROWS))
    assert await sql.fetchval("SELECT count(*) FROM import_rows") == 3
    assert not await database.transaction(
        lambda session: attempts.fail(session, first, reason="late")
    )
    await database.transaction(lambda session: attempts.refuse(session, first, reason="late"))
    row = await sql.fetchrow("SELECT status::text, attempts, failure FROM imports")
    assert row is not None
    assert tuple(row) == ("VALIDATING", 2, None)


async def test_import_whose_workers_always_die_fails(api: Api, imports: Imports, sql: Sql) -> None:
    await make_segments(api, "a")
    started = await imports.start(b"1\n")
    for _ in range(attempts.MAX_ATTEMPTS):
        await claim(imports, sql)
    await sql.execute("UPDATE imports SET next_attempt_at = now()")
    await imports.work(started["id"])
    failed = await imports.read(started["id"])
    assert (failed["status"], failed["failure"]) == (
        "FAILED",
        "the worker died in the last of 8 attempts",
    )
    assert (failed["rows"], failed["resultUrl"], counts(failed)) == (None, None, {})


async def test_missing_file_fails_the_import_after_all_attempts(
    api: Api, imports: Imports, sql: Sql, storage: Storage
) -> None:
    await make_segments(api, "a")
    started = await imports.start(b"1\n")
    await storage.delete([await sql.fetchval("SELECT file_key FROM imports")])
    for _ in range(attempts.MAX_ATTEMPTS):
        assert (await imports.read(started["id"]))["status"] == "QUEUED"
        await sql.execute("UPDATE imports SET next_attempt_at = now()")
        await advance_import(imports.context, 1)
    failed = await imports.read(started["id"])
    assert (failed["status"], failed["failure"]) == (
        "FAILED",
        "the uploaded file is missing in the object store",
    )


@pytest.mark.slow
@pytest.mark.parametrize("rows", [3, 200_000])
async def test_import_that_is_cancelled_while_it_is_read_stores_nothing(
    api: Api, imports: Imports, sql: Sql, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT_SECONDS", 0.01)
    await make_segments(api, "a")
    started = await imports.start(id_list(range(1, rows + 1)))
    reading = asyncio.create_task(actors.advance_import(imports.context, 1))

    while (await imports.read(started["id"]))["status"] == "QUEUED":
        await asyncio.sleep(0)
    payload = await imports.send(CANCEL, id=started["id"])
    assert payload["errors"] == []
    await reading
    await imports.finish(started["id"])
    cancelled = await imports.read(started["id"])
    assert cancelled["status"] == "CANCELLED"
    assert sum(counts(cancelled).values()) == (cancelled["rows"] or 0)
    assert await members(sql, 1) == {}
    for table in ("import_rows", "import_users"):
        assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.slow
async def test_reading_can_be_interrupted_and_repeated(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    started = await imports.start(id_list(range(1, 100_001)))
    reading = asyncio.create_task(actors.advance_import(imports.context, 1))

    while not await sql.fetchval("SELECT EXISTS (SELECT FROM import_rows)"):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    row = await sql.fetchrow("SELECT status::text, attempts FROM imports")
    assert row is not None
    assert tuple(row) == ("QUEUED", 1)
    await sql.execute("UPDATE imports SET next_attempt_at = now()")
    await imports.work(started["id"])
    finished = await imports.read(started["id"])
    assert (finished["status"], counts(finished)) == ("COMPLETED", {"JOINED": 100_000})


async def test_heartbeats_keep_the_lease(api: Api, imports: Imports, sql: Sql) -> None:
    is_cancelled = asyncio.Event()

    async def read_forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()

    await make_segments(api, "a")
    await imports.start(b"1\n")
    attempt = await claim(imports, sql)
    await sql.execute("UPDATE imports SET next_attempt_at = now()")
    reading = asyncio.create_task(
        run_with_heartbeats(
            read_forever(),
            lambda: actors._extend_lease(imports.context.database, attempt),
            interval_seconds=0.01,
        )
    )
    while not await sql.fetchval("SELECT next_attempt_at > now() + interval '9 s' FROM imports"):
        await asyncio.sleep(0)
    await sql.execute("UPDATE imports SET attempts = attempts + 1")
    with pytest.raises(attempts.LeaseLost):
        await reading
    assert is_cancelled.is_set()
