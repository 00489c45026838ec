"""`updateUserSegments` adds and removes memberships in one transaction."""

from typing import Any

from segmentql.adapters.database import Database
from segmentql.memberships import service
from segmentql.principal import NO_ACTOR
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import (
    change_counts,
    delete_segment,
    make_segments,
    parse_timestamp,
    segment_slugs,
    update_user_segments,
)


async def test_change_adds_and_removes_and_stores_the_user(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "C")
    first = await update_user_segments(api, 7, add=["B", "A"])
    assert segment_slugs(first) == ["A", "B"]
    assert change_counts(first) == (2, 0, 0)
    second = await update_user_segments(api, 7, add=["C"], remove=["A"])
    assert segment_slugs(second) == ["B", "C"]
    assert change_counts(second) == (1, 1, 0)
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_adding_keeps_the_existing_memberships(api: Api) -> None:
    await make_segments(api, "A", "B")
    before = (await update_user_segments(api, 7, add=["A"], ttlSeconds=60))["user"]["memberships"]
    after = (await update_user_segments(api, 7, add=["B"]))["user"]["memberships"]
    assert after[0] == before[0]


async def test_unknown_user_is_stored_under_the_given_id(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 1, add=[])
    payload = await update_user_segments(api, 42, add=["A"])
    assert payload["user"]["id"] == "42"
    rows = await sql.fetch("SELECT user_id FROM memberships")
    assert [row["user_id"] for row in rows] == [42]


async def test_new_membership_is_manual_and_starts_at_its_history_entry(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    first, second = (await update_user_segments(api, 7, add=["A", "B"]))["user"]["memberships"]
    assert first["cause"] == second["cause"] == "MANUAL"
    assert first["expiresAt"] is second["expiresAt"] is None
    assert first["joinedAt"] == first["updatedAt"] == second["joinedAt"]
    recorded = await sql.fetch("SELECT at, operation, cause, actor FROM history")
    assert [tuple(row) for row in recorded] == [
        (parse_timestamp(first["joinedAt"]), "JOINED", "MANUAL", None)
    ] * 2


async def test_entries_of_one_change_have_one_timestamp(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["A"])
    await update_user_segments(api, 7, add=["B"], remove=["A"])
    newest = await sql.fetch("SELECT operation, at FROM history ORDER BY at DESC LIMIT 2")
    assert {row["operation"] for row in newest} == {"JOINED", "LEFT"}
    assert newest[0]["at"] == newest[1]["at"]


async def test_timestamps_of_one_user_strictly_increase(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for _ in range(5):
        await update_user_segments(api, 7, add=["A"])
        await update_user_segments(api, 7, remove=["A"])
    ats = [row["at"] for row in await sql.fetch("SELECT at FROM history ORDER BY at")]
    assert len(set(ats)) == 10


async def test_removing_a_segment_without_membership_is_no_error(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    payload = await update_user_segments(api, 7, remove=["A"])
    assert payload["errors"] == []
    assert change_counts(payload) == (0, 0, 0)
    assert payload["user"] == {"id": "7", "key": None, "segments": [], "memberships": []}
    assert await sql.fetchval("SELECT count(*) FROM history") == 0


async def test_removing_an_expired_membership_is_no_manual_leave(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    assert change_counts(await update_user_segments(api, 7, remove=["A"])) == (0, 0, 0)
    left = await sql.fetch("SELECT at, cause FROM history WHERE operation = 'LEFT'")
    assert [tuple(row) for row in left] == [(NOON + HOUR, "TTL")]
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0


async def test_empty_lists_only_store_the_user(api: Api, sql: Sql) -> None:
    lists: tuple[dict[str, Any], ...] = ({}, {"add": [], "remove": []}, {"add": None})
    for user_id, arguments in enumerate(lists):
        payload = await update_user_segments(api, user_id + 1, **arguments)
        assert payload["errors"] == []
        assert change_counts(payload) == (0, 0, 0)
        assert payload["user"]["id"] == str(user_id + 1)
    assert await sql.fetchval("SELECT count(*) FROM users") == 3
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0
    assert await sql.fetchval("SELECT count(*) FROM history") == 0


async def test_user_keeps_its_creation_time(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7)
    stored_at = await sql.fetchval("SELECT created_at FROM users")
    await update_user_segments(api, 7, add=["A"])
    assert await sql.fetchval("SELECT created_at FROM users") == stored_at


async def test_change_accepts_a_hundred_slugs(api: Api, sql: Sql) -> None:
    slugs = [f"S{number}" for number in range(100)]
    await make_segments(api, *slugs)
    await update_user_segments(api, 7, add=slugs[:40])
    payload = await update_user_segments(api, 7, remove=slugs[:40], add=slugs[40:])
    assert payload["errors"] == []
    assert change_counts(payload) == (60, 40, 0)
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 60
    assert await sql.fetchval("SELECT count(*) FROM history") == 140


async def test_change_takes_two_statements_for_any_number_of_slugs(
    api: Api, database: Database
) -> None:
    slugs = [f"S{number}" for number in range(20)]
    await make_segments(api, *slugs)
    for user_id, add in ((1, slugs[:1]), (2, slugs)):
        with recorded_statements() as statements:
            await database.transaction(
                lambda session, user_id=user_id, add=add: service.update_user_segments(  # type: ignore[misc]
                    session, user_id=user_id, add=add, remove=[], actor=NO_ACTOR
                )
            )
        assert len(statements) == 2
        with recorded_statements() as statements:
            await api(
                """mutation($id: ID!, $remove: [String!]) { updateUserSegments(
                input: {userId: $id, remove: $remove}) { segmentsRemoved user { id } } }""",
                id=str(user_id),
                remove=add,
            )
        assert len(statements) == 2


async def test_removing_excludes_and_adding_ends_the_exclusion(api: Api) -> None:
    await make_segments(api, "A", "B")
    query = '{ user(id: 7) { a: isExcluded(slug: "A") b: isExcluded(slug: "B") } }'
    await update_user_segments(api, 7, add=["A"])
    assert (await api(query))["user"] == {"a": False, "b": False}
    await update_user_segments(api, 7, remove=["A"])
    assert (await api(query))["user"] == {"a": True, "b": False}
    await update_user_segments(api, 7, remove=["A"])
    assert (await api(query))["user"] == {"a": True, "b": False}
    await update_user_segments(api, 7, add=["A"])
    assert (await api(query))["user"] == {"a": False, "b": False}


async def test_removing_excludes_a_user_without_membership(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, remove=["A"])
    await update_user_segments(api, 8, add=["A"])
    data = await api('{ usersById(ids: [7, 8]) { isExcluded(slug: "A") isIn(slug: "A") } }')
    assert data["usersById"] == [
        {"isExcluded": True, "isIn": False},
        {"isExcluded": False, "isIn": True},
    ]


async def test_expiry_does_not_exclude(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    data = await api('{ user(id: 7) { isExcluded(slug: "A") isIn(slug: "A") } }')
    assert data["user"] == {"isExcluded": False, "isIn": False}


async def test_slug_of_a_deleted_segment_is_unknown(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await delete_segment(api, "A")
    before = await all_rows(sql)
    payload = await update_user_segments(api, 7, add=["A"])
    assert payload["user"] is None
    assert [error["slugs"] for error in payload["errors"]] == [["A"]]
    assert await all_rows(sql) == before
