"""Imports of one segment apply in the order of their starts; segments and users can be deleted."""

import pytest

from segmentql.imports import actors, chunks
from segmentql.imports.actors import advance_import
from tests.conftest import Api, Sql
from tests.imports.lists import CANCEL, Imports, counts, lines_of_result
from tests.operations import delete_segment, delete_user, make_segments
from tests.timeline import history_inconsistencies


@pytest.fixture(autouse=True)
def one_user_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_USERS", 1)
    monkeypatch.setattr(actors, "MAX_RUN_SECONDS", -1)


async def statuses(sql: Sql) -> list[tuple[str, int]]:
    rows = await sql.fetch("SELECT status::text, applied_users FROM imports ORDER BY id")
    return [(row["status"], row["applied_users"]) for row in rows]


async def test_import_waits_for_an_earlier_one_of_its_segment_only(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a", "b")
    third = await imports.create(b"1\n")  # created first, started last
    first = await imports.start(b"1\n2\n")
    second = await imports.start(b"1\n2\n", mode="REMOVE")
    other = await imports.start(b"1\n", slug="b")
    dry_run = await imports.start(b"1\n", dryRun=True)
    for import_id in (3, 4, 5):
        await advance_import(imports.context, import_id)
    # The first one is not read yet, and the second one waits for it.
    assert await statuses(sql) == [
        ("AWAITING_UPLOAD", 0),
        ("QUEUED", 0),
        ("APPLYING", 0),
        ("APPLYING", 1),
        ("VALIDATED", 0),
    ]
    await sql.execute("UPDATE imports SET next_attempt_at = next_attempt_at - interval '1 minute'")
    due = await actors.find_due(imports.context.database)
    assert sorted(message.args for message in due) == [(2,), (4,)]
    await advance_import(imports.context, 2)
    await advance_import(imports.context, 3)
    assert (await statuses(sql))[1:3] == [("APPLYING", 1), ("APPLYING", 0)]
    for record in (first, second, other):
        await imports.work(record["id"])
    assert counts(await imports.read(first["id"])) == {"JOINED": 2}
    assert counts(await imports.read(second["id"])) == {"LEFT": 2}
    assert counts(await imports.read(other["id"])) == {"JOINED": 1}
    assert (await imports.read(dry_run["id"]))["status"] == "VALIDATED"
    assert (await imports.read(third["id"]))["status"] == "AWAITING_UPLOAD"
    assert await history_inconsistencies(sql) == {}


async def test_cancelled_import_lets_the_next_one_continue(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a")
    first = await imports.start(b"1\n2\n")
    second = await imports.start(b"3\n")
    await advance_import(imports.context, 1)
    await imports.send(CANCEL, id=first["id"])
    await imports.work(second["id"])
    assert await statuses(sql) == [("CANCELLED", 1), ("COMPLETED", 1)]


@pytest.mark.parametrize("mode", ["ADD", "REMOVE", "REPLACE"])
async def test_deleted_segment_fails_the_import(
    api: Api, imports: Imports, sql: Sql, mode: str
) -> None:
    await make_segments(api, "a")
    started = await imports.start(b"1\n2\n2\n", mode=mode)
    await advance_import(imports.context, 1)
    await delete_segment(api, "a")
    await make_segments(api, "a")
    await imports.work(started["id"])
    failed = await imports.read(started["id"])
    assert (failed["status"], failed["failure"]) == ("FAILED", "the segment was deleted")
    first = "UNKNOWN_USER" if mode == "REMOVE" else "JOINED"
    assert counts(failed) == {first: 1, "NOT_REACHED": 1, "DUPLICATE": 1}
    assert [line.split(",")[3] for line in await lines_of_result(failed)] == [
        first,
        "NOT_REACHED",
        "DUPLICATE",
    ]
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE segment_id = 2") == 0
    assert await history_inconsistencies(sql) == {}


@pytest.mark.parametrize("on_unknown_user", ["STORE", "SKIP"])
async def test_users_who_are_deleted_meanwhile_are_unknown_again(
    api: Api, imports: Imports, sql: Sql, on_unknown_user: str
) -> None:
    await make_segments(api, "a")
    await sql.execute("INSERT INTO users (id, created_at) SELECT generate_series(1, 3), now()")
    started = await imports.start(b"1\n2\n3\n", onUnknownUser=on_unknown_user)
    await advance_import(imports.context, 1)
    for user_id in (1, 2):
        await delete_user(api, user_id)
    await imports.work(started["id"])
    outcome = {"STORE": {"JOINED": 3}, "SKIP": {"JOINED": 2, "UNKNOWN_USER": 1}}
    assert counts(await imports.read(started["id"])) == outcome[on_unknown_user]
    assert await history_inconsistencies(sql) == {}
