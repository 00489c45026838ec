"""A list that is computed from segments has the users of an independent computation."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from tests.back_dating import insert_membership, insert_past_membership
from tests.conftest import Api, Sql
from tests.imports.lists import CREATE, Imports, counts, lines_of_result
from tests.operations import delete_segment, make_segments, update_user_segments
from tests.rollouts.helpers import members
from tests.timeline import HOUR, MICROSECOND, database_now

SLUGS = ("a", "b", "c", "d")
USERS = range(1, 25)


async def run(imports: Imports, slug: str = "a", **fields: Any) -> Any:
    """Import from segments; return the import."""
    options = {name: fields.pop(name) for name in ("mode", "allowEmpty") if name in fields}
    payload = await imports.send(CREATE, slug=slug, source={"segments": fields}, **options)
    assert payload["errors"] == []
    assert payload["upload"] is None
    assert payload["import"]["status"] == "QUEUED"
    await imports.work(payload["import"]["id"])
    finished = await imports.read(payload["import"]["id"])
    assert (finished["status"], finished["failure"]) == ("COMPLETED", None)
    return finished


async def listed_users(record: Any) -> list[int]:
    """Return the ids of the list, which each have one row."""
    rows = [line.split(",") for line in await lines_of_result(record)]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(row[1] == row[2] for row in rows)
    assert record["rows"] == len(rows) == sum(counts(record).values())
    return [int(row[1]) for row in rows]


def algebra(members_of: Mapping[str, set[int]], **lists: Any) -> list[int]:
    """Compute the list in Python."""

    def sets(name: str) -> Sequence[set[int]]:
        return [members_of[slug] for slug in lists.get(name) or ()]

    everyone = set[int]().union(*members_of.values())
    found = everyone
    if lists.get("anyOf"):
        found = found & set[int]().union(*sets("anyOf"))
    for each in sets("allOf"):
        found = found & each
    for each in sets("noneOf"):
        found = found - each
    return sorted(found)


ALGEBRAS: list[dict[str, Any]] = [
    {"anyOf": ["b", "c"]},
    {"allOf": ["b", "c"]},
    {"anyOf": ["b"], "noneOf": ["c"]},
    {"allOf": ["b", "c"], "noneOf": ["d"]},
    {"anyOf": ["b", "c"], "allOf": ["d"], "noneOf": ["a"]},
    {"anyOf": ["a", "b"], "noneOf": None, "allOf": None},
    {"allOf": ["a", "d"], "anyOf": []},
    {"anyOf": ["b", "b", "b"], "allOf": ["c", "c"], "noneOf": ["d", "d"]},
    {"allOf": ["b"], "noneOf": ["b"]},
]


@pytest.fixture
async def random_history(
    api: Api, sql: Sql
) -> dict[str, list[tuple[int, datetime, datetime | None]]]:
    """Store past, current and expired memberships; return the stays of each segment."""
    await make_segments(api, *SLUGS)
    now = await database_now(sql)
    chooser = random.Random(7)  # noqa: S311
    stays: dict[str, list[tuple[int, datetime, datetime | None]]] = {slug: [] for slug in SLUGS}
    for slug in SLUGS:
        for user_id in USERS:
            kind = chooser.choice(["none", "past", "now", "ends later", "expired", "both"])
            join = now - 30 * HOUR + chooser.randrange(10) * HOUR
            leave = join + 4 * HOUR
            if kind in {"past", "both"}:
                await sql.execute(
                    "INSERT INTO users (id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    user_id,
                    join,
                )
                await insert_past_membership(sql, user_id, slug, joined_at=join, left_at=leave)
                stays[slug].append((user_id, join, leave))
                join = now - 10 * HOUR
            if kind in {"now", "both", "ends later", "expired"}:
                end = {"ends later": now + 5 * HOUR, "expired": now - 5 * HOUR}.get(kind)
                await insert_membership(sql, user_id, slug, joined_at=join, expires_at=end)
                stays[slug].append((user_id, join, end))
    return stays


def members_at(
    stays: Mapping[str, list[tuple[int, datetime, datetime | None]]], at: datetime
) -> dict[str, set[int]]:
    return {
        slug: {
            user_id for user_id, join, end in of_slug if join <= at and (end is None or end > at)
        }
        for slug, of_slug in stays.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("hours_ago", [None, 0, 5, 8, 26])
async def test_list_equals_the_algebra_of_sets(
    imports: Imports, sql: Sql, random_history: Any, hours_ago: int | None
) -> None:
    at = await database_now(sql)
    fields: dict[str, Any] = {}
    if hours_ago is not None:
        at -= hours_ago * HOUR
        fields = {"asOf": at.isoformat()}
    for lists in ALGEBRAS:
        source = {"segments": {**lists, **fields}}
        payload = await imports.send(CREATE, slug="a", source=source, dryRun=True)
        assert payload["errors"] == []
        await imports.work(payload["import"]["id"])
        rows = await sql.fetch(
            "SELECT line, user_id FROM import_rows WHERE import_id = $1 ORDER BY line",
            int(payload["import"]["id"].removeprefix("imp_")),
        )
        expected = algebra(members_at(random_history, at), **lists)
        assert [tuple(row) for row in rows] == list(enumerate(expected, start=1)), lists


async def test_time_before_an_expiry_that_is_not_recorded_has_the_member(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a", "b")
    now = await database_now(sql)
    end = now - HOUR
    await insert_membership(sql, 7, "b", joined_at=now - 2 * HOUR, expires_at=end)
    for at, users in ((end - MICROSECOND, [7]), (end, []), (now - 2 * HOUR, [7])):
        finished = await run(imports, anyOf=["b"], asOf=at.isoformat())
        assert await listed_users(finished) == users
    before = now - 2 * HOUR - MICROSECOND
    assert (await run(imports, anyOf=["b"], asOf=before.isoformat()))["rows"] == 0


async def test_target_can_be_replaced_by_a_difference_with_itself(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a", "b")
    for user_id in range(1, 7):
        await update_user_segments(api, user_id, add=["a", "b"] if user_id % 2 else ["a"])
    finished = await run(imports, anyOf=["a"], noneOf=["b"], mode="REPLACE")
    assert (counts(finished), finished["removals"]) == ({"ALREADY_IN": 3}, 3)
    assert set(await members(sql, 1)) == {2, 4, 6}
    finished = await run(imports, allOf=["a"], mode="REMOVE")
    assert (counts(finished), finished["removals"]) == ({"LEFT": 3}, 3)


async def test_segment_that_is_deleted_before_it_is_read_matches_nobody(
    api: Api, imports: Imports, sql: Sql
) -> None:
    await make_segments(api, "a", "b", "c")
    for slug, user_id in (("b", 1), ("c", 2)):
        await update_user_segments(api, user_id, add=[slug])
    at = (await database_now(sql)).isoformat()
    sources = [{"anyOf": ["b", "c"]}, {"allOf": ["b", "c"]}, {"anyOf": ["c"], "noneOf": ["b"]}]
    ids = []
    for source in [*sources, {"anyOf": ["b", "c"], "asOf": at}]:
        payload = await imports.send(CREATE, slug="a", source={"segments": source})
        ids.append(payload["import"]["id"])
    await delete_segment(api, "b")
    found = []
    for import_id in ids:
        await imports.work(import_id)
        found.append(await listed_users(await imports.read(import_id)))
    assert found == [[2], [], [2], [1, 2]]


@pytest.mark.parametrize("on_unknown_user", ["STORE", "SKIP", None])
async def test_users_who_were_deleted_since_are_stored_again_unless_skipped(
    api: Api, imports: Imports, sql: Sql, on_unknown_user: str | None
) -> None:
    """`onUnknownUser` means the same for every source, see decision 18."""
    await make_segments(api, "a", "b")
    await update_user_segments(api, 1, add=["b"])
    at = (await database_now(sql)).isoformat()
    await api("mutation { deleteUser(input: {id: 1}) { deletedId } }")
    fields = {"onUnknownUser": on_unknown_user} if on_unknown_user else {}
    source = {"segments": {"anyOf": ["b"], "asOf": at}}
    payload = await imports.send(CREATE, slug="a", source=source, **fields)
    await imports.work(payload["import"]["id"])
    outcome = "UNKNOWN_USER" if on_unknown_user == "SKIP" else "JOINED"
    assert counts(await imports.read(payload["import"]["id"])) == {outcome: 1}
    stored = set() if on_unknown_user == "SKIP" else {1}
    assert set(await members(sql, 1)) == stored
    assert await sql.fetchval("SELECT count(*) FROM users") == len(stored)
