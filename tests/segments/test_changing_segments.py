"""`createSegment` and `updateSegment`."""

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


async def test_a_new_segment_is_at_version_one_with_nobody_in_it(api: Api, sql: Sql) -> None:
    payload = await create_segment(api, slug="A", name="Ä name", description="Why\nit is")
    made = payload["segment"]
    assert payload["errors"] == []
    assert (made["slug"], made["name"], made["description"]) == ("A", "Ä name", "Why\nit is")
    assert (made["version"], made["deletedAt"]) == (1, None)
    assert made["createdAt"] == made["updatedAt"]
    assert parse_timestamp(made["createdAt"]) == await sql.fetchval(
        "SELECT created_at FROM segments"
    )
    assert await segment(api) == made
    data = await api('{ segment(slug: "A") { memberCount members { nodes { id } } } }')
    assert data["segment"] == {"memberCount": 0, "members": {"nodes": []}}


@pytest.mark.parametrize("given", [{}, {"name": None, "description": None}])
async def test_name_and_description_may_be_left_out_or_null(
    api: Api, given: dict[str, None]
) -> None:
    made = (await create_segment(api, slug="A", **given))["segment"]
    assert (made["name"], made["description"]) == (None, None)


async def test_slugs_that_differ_in_case_alone_are_two_segments(api: Api) -> None:
    upper, lower = [(await create_segment(api, slug=slug))["segment"] for slug in ("A", "a")]
    assert upper["id"] != lower["id"]
    assert (await segment(api, "a"))["id"] == lower["id"]


async def test_a_slug_that_is_borne_is_refused_with_its_segment_and_changes_nothing(
    api: Api, sql: Sql
) -> None:
    first = (await create_segment(api, slug="A", name="First"))["segment"]
    before = await all_rows(sql)
    again = await create_segment(api, slug="A", name="Second")
    assert again["segment"] is None
    assert again["errors"] == [
        {
            "__typename": "SegmentAlreadyExists",
            "code": "SEGMENT_ALREADY_EXISTS",
            "message": 'A segment with the slug "A" already exists.',
            "path": ["slug"],
            "segment": {"id": first["id"], "slug": "A", "name": "First", "version": 1},
        }
    ]
    assert await all_rows(sql) == before


async def test_of_many_at_once_one_is_made_and_the_others_are_refused_with_it(api: Api) -> None:
    payloads = await asyncio.gather(*(create_segment(api, slug="A") for _ in range(20)))
    (made,) = [payload["segment"]["id"] for payload in payloads if payload["segment"]]
    told = [payload["errors"][0]["segment"]["id"] for payload in payloads if payload["errors"]]
    assert told == [made] * 19


async def test_an_absent_field_stays_and_null_clears_it(api: Api) -> None:
    await create_segment(api, slug="A", name="Name", description="Description")
    changed = (await update_segment(api, slug="A", name="New"))["segment"]
    assert (changed["name"], changed["description"]) == ("New", "Description")
    cleared = (await update_segment(api, slug="A", description=None))["segment"]
    assert (cleared["name"], cleared["description"]) == ("New", None)
    assert await segment(api) == cleared


async def test_a_change_moves_version_and_updated_at_and_nothing_else(api: Api) -> None:
    made = (await create_segment(api, slug="A", name="Name"))["segment"]
    changed = (await update_segment(api, slug="A", name="New"))["segment"]
    assert changed["version"] == 2
    assert changed["updatedAt"] > made["updatedAt"]
    assert {**made, "name": "New", "version": 2, "updatedAt": changed["updatedAt"]} == changed


@pytest.mark.parametrize("given", [{}, {"name": "Name"}, {"name": "Name", "description": None}])
async def test_what_is_so_already_moves_neither_version_nor_updated_at(
    api: Api, sql: Sql, given: dict[str, str | None]
) -> None:
    made = (await create_segment(api, slug="A", name="Name"))["segment"]
    before = await all_rows(sql)
    assert (await update_segment(api, slug="A", **given)) == {"segment": made, "errors": []}
    assert await all_rows(sql) == before


async def test_the_expected_version_lets_a_change_through(api: Api) -> None:
    await create_segment(api, slug="A")
    payload = await update_segment(api, slug="A", name="New", expectedVersion=1)
    assert (payload["segment"]["version"], payload["errors"]) == (2, [])


async def test_a_null_expected_version_expects_none(api: Api) -> None:
    await create_segment(api, slug="A")
    payload = await update_segment(api, slug="A", name="New", expectedVersion=None)
    assert payload["segment"]["version"] == 2


@pytest.mark.parametrize("expected", [1, 3])
async def test_another_version_is_a_conflict_that_shows_the_current_one_and_changes_nothing(
    api: Api, sql: Sql, expected: int
) -> None:
    made = (await create_segment(api, slug="A"))["segment"]
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
            "current": {"id": made["id"], "slug": "A", "name": "Theirs", "version": 2},
        }
    ]
    assert await all_rows(sql) == before


async def test_of_many_who_expect_the_same_version_one_changes_it(api: Api) -> None:
    await create_segment(api, slug="A")
    payloads = await asyncio.gather(
        *(update_segment(api, slug="A", name=str(n), expectedVersion=1) for n in range(10))
    )
    assert sorted(payload["errors"] == [] for payload in payloads) == [False] * 9 + [True]
    current = await segment(api)
    assert current["version"] == 2
    told = [payload["errors"][0]["current"]["name"] for payload in payloads if payload["errors"]]
    assert told == [current["name"]] * 9


async def test_changes_at_once_are_all_counted(api: Api) -> None:
    await create_segment(api, slug="A")
    await asyncio.gather(*(update_segment(api, slug="A", name=str(n)) for n in range(10)))
    assert (await segment(api))["version"] == 11


@pytest.mark.parametrize("times", [0, 1])
async def test_changing_a_slug_that_none_bears_now_is_refused(
    api: Api, sql: Sql, times: int
) -> None:
    for _ in range(times):
        await create_segment(api, slug="NOPE")
        await delete_segment(api, "NOPE")
    before = await all_rows(sql)
    assert await update_segment(api, slug="NOPE", name="New") == {
        "segment": None,
        "errors": [NOT_FOUND],
    }
    assert await all_rows(sql) == before


async def test_making_is_one_statement_and_changing_a_lock_and_a_write(api: Api) -> None:
    with recorded_statements() as made:
        await create_segment(api, slug="A")
    with recorded_statements() as changed:
        await update_segment(api, slug="A", name="New")
    assert (len(made), len(changed)) == (1, 2)
