"""`updateUserSegments` rejects invalid changes with every reason, and then changes nothing."""

from typing import Any

import pytest

from segmentql.validators import MAX_TTL_SECONDS, SLUG_ALLOWED, TTL_ALLOWED, USER_ID_ALLOWED
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_SLUGS, BAD_USER_IDS, GOOD_SLUGS
from tests.operations import (
    UPDATE_USER_SEGMENTS,
    change_counts,
    make_segments,
    segment_slugs,
    update_user_segments,
)

ONCE = "each slug once, in `add` or in `remove`"


async def rejected(api: Api, sql: Sql, **arguments: Any) -> list[tuple[str, list[str], str | None]]:
    """Send an invalid change, and return its errors as code, path and allowed values."""
    before = await all_rows(sql)
    data = await api(UPDATE_USER_SEGMENTS, input={"userId": "7", **arguments})
    payload = data["updateUserSegments"]
    assert await all_rows(sql) == before
    assert payload["user"] is None
    assert change_counts(payload) == (0, 0, 0)
    return [(error["code"], error["path"], error.get("allowed")) for error in payload["errors"]]


async def test_every_unknown_slug_is_named(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    await update_user_segments(api, 7, add=["B"])
    before = await all_rows(sql)
    payload = await update_user_segments(api, 7, add=["A", "NOPE"], remove=["B", "NEITHER"])
    assert payload["user"] is None
    assert change_counts(payload) == (0, 0, 0)
    assert payload["errors"] == [
        {
            "__typename": "SegmentNotFound",
            "code": "SEGMENT_NOT_FOUND",
            "message": 'No segment has any of the slugs "NOPE", "NEITHER".',
            "path": ["add", "1"],
            "slugs": ["NOPE", "NEITHER"],
        }
    ]
    assert await all_rows(sql) == before


async def test_unknown_slug_to_remove_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert await rejected(api, sql, add=["A"], remove=["NOPE"]) == [
        ("SEGMENT_NOT_FOUND", ["remove", "0"], None)
    ]


async def test_slugs_are_case_sensitive(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert await rejected(api, sql, add=["a"]) == [("SEGMENT_NOT_FOUND", ["add", "0"], None)]


async def test_slug_in_both_lists_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    before = await all_rows(sql)
    payload = await update_user_segments(api, 7, add=["B", "A"], remove=["A"])
    assert payload["errors"] == [
        {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": f"remove.0 is not valid: A is already in add.1. Allowed: {ONCE}.",
            "path": ["remove", "0"],
            "allowed": ONCE,
        }
    ]
    assert await all_rows(sql) == before


@pytest.mark.parametrize("field", ["add", "remove"])
async def test_repeated_slugs_in_a_list_are_rejected(api: Api, sql: Sql, field: str) -> None:
    await make_segments(api, "A", "B")
    assert await rejected(api, sql, **{field: ["A", "B", "A", "A"]}) == [
        ("INVALID_INPUT", [field, "2"], ONCE),
        ("INVALID_INPUT", [field, "3"], ONCE),
    ]


@pytest.mark.parametrize("field", ["add", "remove"])
async def test_invalid_slug_is_rejected(api: Api, sql: Sql, field: str) -> None:
    await make_segments(api, "A")
    for slug in BAD_SLUGS:
        assert await rejected(api, sql, **{field: ["A", slug]}) == [
            ("INVALID_INPUT", [field, "1"], SLUG_ALLOWED)
        ], ascii(slug)


async def test_every_valid_slug_is_accepted(api: Api) -> None:
    await make_segments(api, *GOOD_SLUGS)
    assert segment_slugs(await update_user_segments(api, 7, add=GOOD_SLUGS)) == sorted(GOOD_SLUGS)


async def test_invalid_user_id_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for user_id in BAD_USER_IDS:
        assert await rejected(api, sql, userId=user_id, add=["A"]) == [
            ("INVALID_INPUT", ["userId"], USER_ID_ALLOWED)
        ], ascii(user_id)


@pytest.mark.parametrize(
    ("added", "removed", "field"), [(101, 0, "add"), (0, 101, "remove"), (50, 51, "remove")]
)
async def test_more_than_a_hundred_slugs_are_rejected(
    api: Api, sql: Sql, added: int, removed: int, field: str
) -> None:
    add = [f"S{number}" for number in range(added)]
    remove = ["not a slug"] * removed
    assert await rejected(api, sql, add=add, remove=remove) == [
        ("INVALID_INPUT", [field], "at most 100 slugs together")
    ]


async def test_ttl_out_of_range_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for seconds in (0, -1, -(2**31), MAX_TTL_SECONDS + 1, 2**31 - 1):
        assert await rejected(api, sql, add=["A"], ttlSeconds=seconds) == [
            ("INVALID_INPUT", ["ttlSeconds"], TTL_ALLOWED)
        ], seconds


async def test_end_in_the_past_or_beyond_ten_years_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    query = "SELECT clock_timestamp() + $1::text::interval"
    ends = [
        (await sql.fetchval(query, interval)).isoformat()
        for interval in ("-1 second", "0 seconds", "-10 years", "315360060 seconds", "7000 years")
    ]
    for end in (*ends, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        for add in (["A"], []):
            assert await rejected(api, sql, add=add, expiresAt=end) == [
                ("INVALID_INPUT", ["expiresAt"], TTL_ALLOWED)
            ], end


async def test_member_keeps_its_end_if_a_new_one_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=60)
    for arguments in ({"ttlSeconds": 0}, {"expiresAt": "2020-01-01T00:00:00Z"}):
        assert len(await rejected(api, sql, add=["A"], onExisting="REPLACE", **arguments)) == 1


async def test_ttl_and_expiry_together_are_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert await rejected(api, sql, add=["A"], ttlSeconds=60, expiresAt="2030-01-01T00:00:00Z") == [
        ("INVALID_INPUT", ["expiresAt"], "at most one of `ttlSeconds` and `expiresAt`")
    ]


async def test_all_errors_are_returned_at_once(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    assert await rejected(
        api,
        sql,
        userId="0",
        add=["A", "A B"],
        remove=["A"],
        ttlSeconds=0,
        expiresAt="2030-01-01T00:00:00Z",
    ) == [
        ("INVALID_INPUT", ["userId"], USER_ID_ALLOWED),
        ("INVALID_INPUT", ["add", "1"], SLUG_ALLOWED),
        ("INVALID_INPUT", ["remove", "0"], ONCE),
        ("INVALID_INPUT", ["ttlSeconds"], TTL_ALLOWED),
        ("INVALID_INPUT", ["expiresAt"], "at most one of `ttlSeconds` and `expiresAt`"),
    ]


async def test_rejected_change_does_not_affect_its_siblings(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    data = await api(
        """mutation {
          first: updateUserSegments(input: {userId: 1, add: ["A"]}) { segmentsAdded }
          second: updateUserSegments(input: {userId: 2, add: ["NOPE"]}) { errors { code } }
          third: updateUserSegments(input: {userId: 3, add: ["A"]}) { segmentsAdded }
        }"""
    )
    assert data == {
        "first": {"segmentsAdded": 1},
        "second": {"errors": [{"code": "SEGMENT_NOT_FOUND"}]},
        "third": {"segmentsAdded": 1},
    }
    rows = await sql.fetch("SELECT id FROM users ORDER BY id")
    assert [row["id"] for row in rows] == [1, 3]


async def test_value_of_the_wrong_type_is_a_bad_request_that_names_it(api: Api, sql: Sql) -> None:
    invalid_values: tuple[tuple[dict[str, Any], str], ...] = (
        ({"add": [None]}, "input.add.0"),
        ({"add": ["A", 5]}, "input.add.1"),
        ({"userId": 1.5}, "input.userId"),
        ({"userKey": 5}, "input.userKey"),
        ({"ttlSeconds": "60"}, "input.ttlSeconds"),
        ({"ttlSeconds": 2**31}, "input.ttlSeconds"),
        ({"onExisting": "extend"}, "input.onExisting"),
        ({"expiresAt": "2030-01-01T00:00:00"}, "input.expiresAt"),
    )
    await make_segments(api, "A")
    before = await all_rows(sql)
    for arguments, argument in invalid_values:
        variables = {"userId": "7", "add": ["A"], **arguments}
        error = await api.error(UPDATE_USER_SEGMENTS, input=variables)
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert error["extensions"]["argument"] == argument
    assert await all_rows(sql) == before
