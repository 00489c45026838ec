"""`createSegment` and `updateSegment` create and change segments."""

import asyncio
from typing import Any

import pytest

from tests.back_dating import all_rows
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import create_segment, delete_segment, parse_timestamp, update_segment

NOT_FOUND = {
    "__typename": "SegmentNotFound",
    "code": "SEGMENT_NOT_FOUND",
    "message": 'No segment has the slug "NOPE".',
    "path": ["slug"],
    "slugs": ["NOPE"],
}


async def segment(api: Api, slug: str = "A") -> Any:
    query = """query($slug: String!) { segment(slug: $slug) {
      id slug name description createdAt updatedAt deletedAt version } }"""
    return (await api(query, slug=slug))["segment"]


async def test_new_segment_has_version_one_and_no_members(api: Api, sql: Sql) -> None:
    payload = await create_segment(api, slug="A", name="Ä name", description="Why\nit is")
    created = payload["segment"]
    assert payload["errors"] == []
    assert (created["slug"], created["name"], created["description"]) == (
        "A",
        "Ä name",
        "Why\nit is",
    )
    assert (created["version"], created["deletedAt"]) == (1, None)
    assert created["createdAt"] == created["updatedAt"]
    assert parse_timestamp(created["createdAt"]) == await sql.fetchval(
        "SELECT created_at FROM segments"
    )
    assert await segment(api) == created
    data = await api('{ segment(slug: "A") { memberCount members { nodes { id } } } }')
    assert data["segment"] == {"memberCount": 0, "members": {"nodes": []}}


@pytest.mark.parametrize("absent_fields", [{}, {"name": None, "description": None}])
async def test_name_and_description_may_be_absent_or_null(
    api: Api, absent_fields: dict[str, None]
) -> None:
    created = (await create_segment(api, slug="A", **absent_fields))["segment"]
    assert (created["name"], created["description"]) == (None, None)


async def test_slugs_that_differ_only_in_case_are_distinct(api: Api) -> None:
    upper, lower = [(await create_segment(api, slug=slug))["segment"] for slug in ("A", "a")]
    assert upper["id"] != lower["id"]
    assert (await segment(api, "a"))["id"] == lower["id"]


async def test_existing_slug_is_rejected_with_its_segment(api: Api, sql: Sql) -> None:
    first = (await create_segment(api, slug="A", name="First"))["segment"]
    before = await all_rows(sql)
    repeated = await create_segment(api, slug="A", name="Second")
    assert repeated["segment"] is None
    assert repeated["errors"] == [
        {
            "__typename": "SegmentAlreadyExists",
            "code": "SEGMENT_ALREADY_EXISTS",
            "message": 'A segment with the slug "A" already exists.',
            "path": ["slug"],
            "segment": {"id": first["id"], "slug": "A", "name": "First", "version": 1},
        }
    ]
    assert await all_rows(sql) == before


async def test_concurrent_creations_have_one_winner(api: Api) -> None:
    payloads = await asyncio.gather(*(create_segment(api, slug="A") for _ in range(20)))
    (created,) = [payload["segment"]["id"] for payload in payloads if payload["segment"]]
    existing_ids = [
        payload["errors"][0]["segment"]["id"] for payload in payloads if payload["errors"]
    ]
    assert existing_ids == [created] * 19


async def test_absent_field_stays_and_null_clears_it(api: Api) -> None:
    await create_segment(api, slug="A", name="Name", description="Description")
    changed = (await update_segment(api, slug="A", name="New"))["segment"]
    assert (changed["name"], changed["description"]) == ("New", "Description")
    cleared = (await update_segment(api, slug="A", description=None))["segment"]
    assert (cleared["name"], cleared["description"]) == ("New", None)
    assert await segment(api) == cleared


async def test_change_increases_version_and_updated_at_only(api: Api) -> None:
    created = (await create_segment(api, slug="A", name="Name"))["segment"]
    changed = (await update_segment(api, slug="A", name="New"))["segment"]
    assert changed["version"] == 2
    assert changed["updatedAt"] > created["updatedAt"]
    assert {**created, "name": "New", "version": 2, "updatedAt": changed["updatedAt"]} == changed


@pytest.mark.parametrize(
    "absent_fields", [{}, {"name": "Name"}, {"name": "Name", "description": None}]
)
async def test_unchanged_values_keep_version_and_updated_at(
    api: Api, sql: Sql, absent_fields: dict[str, str | None]
) -> None:
    created = (await create_segment(api, slug="A", name="Name"))["segment"]
    before = await all_rows(sql)
    assert (await update_segment(api, slug="A", **absent_fields)) == {
        "segment": created,
        "errors": [],
    }
    assert await all_rows(sql) == before


async def test_change_with_the_expected_version_succeeds(api: Api) -> None:
    await create_segment(api, slug="A")
    payload = await update_segment(api, slug="A", name="New", expectedVersion=1)
    assert (payload["segment"]["version"], payload["errors"]) == (2, [])


async def test_null_expected_version_is_ignored(api: Api) -> None:
    await create_segment(api, slug="A")
    payload = await update_segment(api, slug="A", name="New", expectedVersion=None)
    assert payload["segment"]["version"] == 2


@pytest.mark.parametrize("expected", [1, 3])
async def test_other_version_is_a_conflict_with_the_current_segment(
    api: Api, sql: Sql, expected: int
) -> None:
    created = (await create_segment(api, slug="A"))["segment"]
    await update_segment(api, slug="A", name="Theirs")
    before = await all_rows(sql)
    payload = await update_segment(api, slug="A", name="Mine", expectedVersion=expected)
    assert payload["segment"] is None
    assert payload["errors"] == [
        {
            "__typename": "VersionConflict",
            "code": "VERSION_CONFLICT",
            "message": f"The segment has version 2, but expectedVersion is {expected}.",
            "path": ["expectedVersion"],
            "current": {"id": created["id"], "slug": "A", "name": "Theirs", "version": 2},
        }
    ]
    assert await all_rows(sql) == before


async def test_concurrent_changes_of_one_version_have_one_winner(api: Api) -> None:
    await create_segment(api, slug="A")
    payloads = await asyncio.gather(
        *(update_segment(api, slug="A", name=str(n), expectedVersion=1) for n in range(10))
    )
    assert sorted(payload["errors"] == [] for payload in payloads) == [False] * 9 + [True]
    current = await segment(api)
    assert current["version"] == 2
    existing_ids = [
        payload["errors"][0]["current"]["name"] for payload in payloads if payload["errors"]
    ]
    assert existing_ids == [current["name"]] * 9


async def test_concurrent_changes_increase_the_version_each(api: Api) -> None:
    await create_segment(api, slug="A")
    await asyncio.gather(*(update_segment(api, slug="A", name=str(n)) for n in range(10)))
    assert (await segment(api))["version"] == 11


@pytest.mark.parametrize("times", [0, 1])
async def test_changing_an_unknown_slug_is_rejected(api: Api, sql: Sql, times: int) -> None:
    for _ in range(times):
        await create_segment(api, slug="NOPE")
        await delete_segment(api, "NOPE")
    before = await all_rows(sql)
    assert await update_segment(api, slug="NOPE", name="New") == {
        "segment": None,
        "errors": [NOT_FOUND],
    }
    assert await all_rows(sql) == before


async def test_create_takes_two_statements_and_update_three(api: Api) -> None:
    with recorded_statements() as created:
        await create_segment(api, slug="A")
    with recorded_statements() as changed:
        await update_segment(api, slug="A", name="New")
    assert (len(created), len(changed)) == (2, 3)  # each with its audit entry
