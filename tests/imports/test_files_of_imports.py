"""Uploads are checked and copied, results have every row, and nothing is left behind."""

import csv
import hashlib
import io
from dataclasses import replace
from typing import Any

import pytest

from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.imports.actors import advance_import, find_due, finish_import
from segmentql.imports.jobs import FINISH_IMPORT
from segmentql.objects.actors import ObjectContext, delete_objects
from segmentql.settings import Settings
from segmentql.tables import RowOutcome
from tests.conftest import Api, Sql
from tests.imports.lists import (
    CANCEL,
    CREATE,
    START,
    Imports,
    counts,
    download,
    lines_of_result,
    put,
)
from tests.imports.stored_objects import object_keys
from tests.operations import delete_segment, make_segments
from tests.rollouts.helpers import members


async def left_objects(imports: Imports, sql: Sql, storage: Storage) -> set[str]:
    """Delete the discarded objects; return the keys of the others."""
    await sql.execute("UPDATE objects_to_delete SET next_attempt_at = now()")
    await delete_objects(ObjectContext(imports.context.database, storage))
    return await object_keys(storage)


@pytest.mark.parametrize("end", ["COMPLETED", "REFUSED", "CANCELLED", "FAILED", "AWAITING"])
async def test_finished_import_leaves_its_result_only(
    api: Api, imports: Imports, sql: Sql, storage: Storage, end: str
) -> None:
    before = await left_objects(imports, sql, storage)
    await make_segments(api, "a")
    if end == "AWAITING":
        record = await imports.create(b"1\n")
        await imports.send(CANCEL, id=record["id"])
        await imports.finish(record["id"])
    elif end == "CANCELLED":
        record = await imports.start(b"1\n")
        await imports.send(CANCEL, id=record["id"])
        await imports.finish(record["id"])
    else:
        record = await imports.start(b"PK\x03\x04" if end == "REFUSED" else b"1\n2\n")
        if end == "FAILED":
            await delete_segment(api, "a")
        await imports.work(record["id"])
    finished = await imports.read(record["id"])
    assert finished["status"] == ("CANCELLED" if end == "AWAITING" else end)
    result_key = await sql.fetchval("SELECT result_key FROM imports")
    assert (result_key is not None) == (end in {"COMPLETED", "FAILED"})
    left = await left_objects(imports, sql, storage) - before
    assert left == ({result_key} if result_key else set())
    for table in ("import_rows", "import_users"):
        assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0
    row = await sql.fetchrow("SELECT upload_key, file_key, needs_cleanup FROM imports")
    assert row is not None
    assert tuple(row) == (None, None, False)


async def test_second_upload_does_not_change_a_started_import(
    api: Api, imports: Imports, sql: Sql, storage: Storage
) -> None:
    before = await left_objects(imports, sql, storage)
    await make_segments(api, "a")
    payload = await imports.send(CREATE, slug="a", source={"upload": {"sizeBytes": 2}})
    assert (await put(payload["upload"], b"1\n")).status_code == 200
    await imports.send(START, id=payload["import"]["id"])
    assert (await put(payload["upload"], b"2\n")).status_code == 200
    await imports.work(payload["import"]["id"])
    assert set(await members(sql, 1)) == {1}
    # The link may be used again, so the object is deleted once more at its end.
    assert (await put(payload["upload"], b"3\n")).status_code == 200
    await sql.execute("UPDATE objects_to_delete SET writable_until = now()")
    result_key = await sql.fetchval("SELECT result_key FROM imports")
    assert await left_objects(imports, sql, storage) - before == {result_key}
    assert await sql.fetchval("SELECT count(*) FROM objects_to_delete") == 0


@pytest.mark.parametrize("is_right", [True, False])
async def test_file_with_another_hash_is_refused(
    api: Api, imports: Imports, sql: Sql, *, is_right: bool
) -> None:
    await make_segments(api, "a")
    digest = hashlib.sha256(b"1\n" if is_right else b"2\n").hexdigest()
    source = {"upload": {"sizeBytes": 2, "sha256": digest.upper()}}
    payload = await imports.send(CREATE, slug="a", source=source)
    await put(payload["upload"], b"1\n")
    await imports.send(START, id=payload["import"]["id"])
    await imports.work(payload["import"]["id"])
    finished = await imports.read(payload["import"]["id"])
    if is_right:
        assert (finished["status"], counts(finished)) == ("COMPLETED", {"JOINED": 1})
        return
    found = hashlib.sha256(b"1\n").hexdigest()
    assert (finished["status"], finished["rows"], counts(finished)) == ("REFUSED", None, {})
    assert finished["failure"] == (
        f"The SHA-256 of the file is {found}, not {digest}. Upload the file again."
    )
    assert await members(sql, 1) == {}


async def test_upload_of_another_size_cannot_be_started(
    api: Api, imports: Imports, sql: Sql, storage: Storage
) -> None:
    await make_segments(api, "a")
    created = await imports.create(b"1\n2\n")
    upload_key = await sql.fetchval("SELECT upload_key FROM imports")
    client = await storage._s3.client()
    await client.put_object(Bucket=storage._bucket, Key=upload_key, Body=b"1\n")
    payload = await imports.send(START, id=created["id"])
    (error,) = payload["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["id"])
    assert "the uploaded file has 2 bytes, not 4" in error["message"]
    assert (await imports.read(created["id"]))["status"] == "AWAITING_UPLOAD"


VALUES = ['a"b', "a,b", "ä ö 🎈", "two\nlines", "=1+1", "tab\there", "\u2028", "'", '""', "x" * 300]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


async def read_csv(url: str | None) -> list[dict[str, str]]:
    assert url
    return list(csv.DictReader(io.StringIO(await download(url), newline="")))


async def test_result_can_be_read_as_csv_with_each_row_once(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    data = "".join(f"{quoted(value)}\n" for value in [*VALUES, "7", "8", "7", ""])
    finished = await imports.run(data.encode(), header="ABSENT", maxRejected=len(VALUES))
    rows = await read_csv(finished["resultUrl"])
    lines = [1 + number + (number > 3) for number in range(len(VALUES) + 4)]
    assert [int(row["line"]) for row in rows] == lines
    values = [*(value[:255] for value in VALUES), "7", "8", "7", ""]
    assert [row["value"] for row in rows] == values
    outcomes: Any = [*["MALFORMED"] * len(VALUES), "JOINED", "JOINED", "DUPLICATE", "BLANK"]
    assert [row["outcome"] for row in rows] == outcomes
    assert all(row["detail"] for row in rows[: len(VALUES)])
    parts = [["MALFORMED"], ["JOINED", "BLANK"], ["DUPLICATE", "HEADER"]]
    filtered = [
        row for part in parts for row in await read_csv(await imports.filter(finished["id"], part))
    ]
    assert sorted(filtered, key=lambda row: int(row["line"])) == rows
    every = [outcome.value for outcome in RowOutcome]
    read = await api(
        "query($id: ID!, $all: [RowOutcome!]) { import(id: $id) { resultUrl(outcomes: $all) } }",
        id=finished["id"],
        all=every,
    )
    assert await read_csv(read["import"]["resultUrl"]) == rows


@pytest.mark.slow
async def test_long_result_is_filtered_completely(api: Api, imports: Imports, sql: Sql) -> None:
    """Chunks of the file end within rows and within quotes."""
    await make_segments(api, "a")
    long = "\n".join(["é", '"', ","] * 30)
    rows = [long if number % 3 else str(number + 1) for number in range(9000)]
    data = "".join(f"{quoted(row)}\n" for row in rows).encode()
    finished = await imports.run(data, header="ABSENT", maxRejected=9000)
    assert finished["failure"] is None
    found = await read_csv(await imports.filter(finished["id"], ["MALFORMED"]))
    assert [row["value"] for row in found] == [row for n, row in enumerate(rows) if n % 3]
    assert len(await lines_of_result(finished)) >= 9000


async def test_result_waits_longer_if_the_store_fails_for_longer(
    api: Api, imports: Imports, sql: Sql, settings: Settings
) -> None:
    await make_segments(api, "a")
    started = await imports.start(b"1\n")
    await advance_import(imports.context, 1)
    wrong_store = Storage(settings.model_copy(update={"s3_bucket": "no-such-bucket"}))
    await finish_import(replace(imports.context, storage=wrong_store), 1)
    await wrong_store.close()
    seconds = "SELECT extract(epoch FROM cleanup_after - now())::float FROM imports"
    assert 4 < await sql.fetchval(seconds) <= 5
    await sql.execute("UPDATE imports SET finished_at = finished_at - interval '1 minute'")
    assert Message(FINISH_IMPORT, (1,)) not in await find_due(imports.context.database)
    await sql.execute("UPDATE imports SET cleanup_after = now() - interval '1 s'")
    assert Message(FINISH_IMPORT, (1,)) in await find_due(imports.context.database)
    await finish_import(imports.context, 1)
    assert (await imports.read(started["id"]))["resultUrl"]
