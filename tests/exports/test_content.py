"""The file of an export has exactly the members at the export's time."""

import random
from datetime import datetime, timedelta

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from segmentql.imports.actors import ImportContext
from segmentql.memberships.expiry import expire_due
from tests.back_dating import (
    HOUR,
    MICROSECOND,
    NOON,
    insert_membership,
    insert_past_membership,
)
from tests.conftest import Api, Sql
from tests.exports.conftest import MakeFile
from tests.exports.queries import create_export, download, export, rows, user_ids
from tests.imports.lists import Imports, counts
from tests.operations import (
    create_user,
    delete_segment,
    delete_user,
    make_segments,
    update_segment_members,
    update_user_segments,
)


async def test_members_at_a_past_time(api: Api, sql: Sql, make_file: MakeFile) -> None:
    await make_segments(api, "a", "b")
    end = await sql.fetchval("SELECT clock_timestamp() + interval '1 hour'")
    await sql.execute("INSERT INTO users (id, created_at, key) VALUES (1, $1, 'k,1')", NOON - HOUR)
    await insert_membership(sql, 1, "a", joined_at=NOON - HOUR)
    await insert_membership(sql, 2, "a", joined_at=NOON)
    await insert_membership(sql, 3, "a", joined_at=NOON + MICROSECOND)
    await insert_membership(sql, 4, "b", joined_at=NOON - HOUR)
    await insert_membership(sql, 5, "a", joined_at=NOON - HOUR, expires_at=NOON)
    await insert_membership(sql, 6, "a", joined_at=NOON - HOUR, expires_at=NOON + MICROSECOND)
    await insert_membership(sql, 7, "a", joined_at=NOON - HOUR, expires_at=end, cause="ROLLOUT")
    for user_id, left_at, cause in [
        (8, NOON, "MANUAL"),
        (9, NOON + MICROSECOND, "MANUAL"),
        (10, NOON + HOUR, "TTL"),
    ]:
        await insert_past_membership(
            sql, user_id, "a", joined_at=NOON - HOUR, left_at=left_at, why_left=cause
        )
    await insert_past_membership(sql, 11, "a", joined_at=NOON - HOUR, left_at=NOON + HOUR)
    await insert_membership(sql, 11, "a", joined_at=NOON + 2 * HOUR)
    await insert_past_membership(
        sql, 12, "a", joined_at=NOON - 2 * HOUR, left_at=NOON - HOUR, why_left="TTL"
    )
    await insert_membership(sql, 12, "a", joined_at=NOON - HOUR / 2)
    await insert_past_membership(sql, 13, "a", joined_at=NOON + MICROSECOND, left_at=NOON + HOUR)
    assert await make_file(asOf=NOON.isoformat()) == (
        "user_id,user_key,joined_at,expires_at,cause\n"
        '1,"k,1",2024-03-01T11:00:00.000000Z,,MANUAL\n'
        "2,,2024-03-01T12:00:00.000000Z,,MANUAL\n"
        "6,,2024-03-01T11:00:00.000000Z,2024-03-01T12:00:00.000001Z,MANUAL\n"
        f"7,,2024-03-01T11:00:00.000000Z,{end:%Y-%m-%dT%H:%M:%S.%fZ},ROLLOUT\n"
        "9,,2024-03-01T11:00:00.000000Z,,MANUAL\n"
        "10,,2024-03-01T11:00:00.000000Z,2024-03-01T13:00:00.000000Z,MANUAL\n"
        "11,,2024-03-01T11:00:00.000000Z,,MANUAL\n"
        "12,,2024-03-01T11:30:00.000000Z,,MANUAL\n"
    )
    assert user_ids(await make_file()) == [1, 2, 3, 7, 11, 12]


async def test_end_of_a_recorded_expiry_stays(
    api: Api, sql: Sql, database: Database, make_file: MakeFile
) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a", expires_at=NOON + HOUR)
    before = await make_file(asOf=NOON.isoformat())
    assert await database.transaction(expire_due)
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0
    assert await make_file(asOf=NOON.isoformat()) == before
    assert rows(before)[0]["expires_at"] == "2024-03-01T13:00:00.000000Z"


async def test_cause_is_that_of_the_time_or_of_the_join(
    api: Api, sql: Sql, make_file: MakeFile
) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a", joined_at=NOON - HOUR, cause="ROLLOUT")
    assert [row["cause"] for row in rows(await make_file())] == ["ROLLOUT"]
    await update_user_segments(api, 1, add=["a"])
    assert [row["cause"] for row in rows(await make_file())] == ["MANUAL"]
    then = rows(await make_file(asOf=NOON.isoformat()))
    assert [row["cause"] for row in then] == ["ROLLOUT"]


async def test_changes_after_the_creation_are_not_in_the_file(
    api: Api, sql: Sql, export_context: FileContext
) -> None:
    await make_segments(api, "a")
    await create_user(api, id="1", key="one")
    await create_user(api, id="2", key="two")
    await update_segment_members(api, "a", add=[1, 2, 3])
    await create_export(api)
    await update_segment_members(api, "a", add=[4], remove=[3])
    await delete_user(api, 2)
    await create_user(api, id="2", key="another")
    await delete_segment(api, "a")
    await make_export(export_context, 1)
    ready = await export(api, "exp_1")
    file = (await download(ready["downloadUrl"])).text
    assert [(row["user_id"], row["user_key"]) for row in rows(file)] == [
        ("1", "one"),
        ("2", "two"),
        ("3", ""),
    ]


async def test_segment_that_was_deleted_before_the_time_is_empty(
    api: Api, sql: Sql, export_context: FileContext
) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a")
    await create_export(api)
    # A deletion that was not committed yet when the export was created.
    await sql.execute("UPDATE segments SET deleted_at = $1", NOON + HOUR)
    await make_export(export_context, 1)
    assert (await export(api, "exp_1"))["rowCount"] == 0


async def test_slug_names_the_existing_segment(api: Api, sql: Sql, make_file: MakeFile) -> None:
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a")
    await delete_segment(api, "a")
    await make_segments(api, "a")
    assert user_ids(await make_file(asOf=NOON.isoformat())) == []


@pytest.fixture
async def imports(api: Api, database: Database, storage: Storage, sent: list[Message]) -> Imports:
    context = ImportContext.create(database, storage, retention_days=30, worker_threads=4)
    return Imports(api, context, sent)


@pytest.mark.slow  # It makes 30 exports after 150 changes.
async def test_random_histories_agree_with_the_segments_of_each_user(
    api: Api, sql: Sql, database: Database, make_file: MakeFile
) -> None:
    await make_segments(api, "a")
    chosen = random.Random(7)  # noqa: S311
    moments: list[datetime] = []
    for step in range(150):
        await _change(api, sql, database, chosen)
        if step % 10 == 9:
            moments.append(await sql.fetchval("SELECT clock_timestamp()"))
    for moment in [*moments, *(moment - timedelta(milliseconds=3) for moment in moments)]:
        query = """query Past($ids: [ID!]!, $at: DateTime!) {
            usersById(ids: $ids) { id segments(asOf: $at) { slug } } }"""
        found = await api(query, ids=[str(n) for n in range(1, 9)], at=moment.isoformat())
        expected = [int(user["id"]) for user in found["usersById"] if user and user["segments"]]
        stored = {int(user["id"]) for user in found["usersById"] if user}
        exported = user_ids(await make_file(asOf=moment.isoformat()))
        assert [user_id for user_id in exported if user_id in stored] == expected


async def _change(api: Api, sql: Sql, database: Database, chosen: random.Random) -> None:
    user_id = chosen.randint(1, 8)
    match chosen.randint(1, 8):
        case 1 | 2 | 3:
            await update_user_segments(api, user_id, add=["a"])
        case 4 | 5:
            await update_user_segments(api, user_id, remove=["a"])
        case 6:
            await update_user_segments(api, user_id, add=["a"], ttlSeconds=1, onExisting="REPLACE")
        case 7:
            await delete_user(api, user_id)
        case 8:
            await database.transaction(expire_due)


async def test_file_can_be_imported_by_id_and_by_key(
    api: Api, sql: Sql, imports: Imports, make_file: MakeFile
) -> None:
    await make_segments(api, "b", "a")
    keys = ["plain", "with,comma", 'with "quotes"', "-1", "=1+1", "00123", "\\.", "NULL", " x "]
    for user_id, key in enumerate(keys, start=1):
        await create_user(api, id=str(user_id), key=key)
    ids = list(range(1, len(keys) + 1))
    await update_segment_members(api, "b", add=ids)
    file = await make_file("b")
    assert [row["user_key"] for row in rows(file)] == keys
    accounted = {"HEADER": 1, "JOINED": len(ids)}
    for identity in ("ID", "KEY"):
        finished = await imports.run(file.encode(), identity=identity)
        assert (finished["status"], counts(finished)) == ("COMPLETED", accounted)
        assert user_ids(await make_file("a")) == ids
        await update_segment_members(api, "a", remove=ids)
        assert user_ids(await make_file("a")) == []
        accounted = {"HEADER": 1, "EXCLUDED": len(ids)}
        finished = await imports.run(file.encode(), identity=identity)
        assert counts(finished) == accounted
        accounted = {"HEADER": 1, "JOINED": len(ids)}
        await sql.execute("DELETE FROM exclusions")
