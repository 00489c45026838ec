"""`updateSegmentMembers` rejects invalid input with every reason, and then changes nothing."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.errors import InvalidInput, MutationRejected
from segmentql.memberships.bulk_changes import add_members
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.memberships.records import Expiry
from segmentql.tables import RowOutcome
from segmentql.validators import (
    MAX_TTL_SECONDS,
    SLUG_ALLOWED,
    TTL_ALLOWED,
    USER_ID_ALLOWED,
    USER_KEY_ALLOWED,
)
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.invalid_values import BAD_USER_IDS
from tests.operations import (
    UPDATE_SEGMENT_MEMBERS,
    create_user,
    delete_segment,
    make_segments,
    outcome_counts,
    update_segment_members,
)
from tests.timeline import database_now

ONE_LIST = "each user either to add or to remove"


async def rejected(
    api: Api, sql: Sql, fields: dict[str, Any], slug: str = "A"
) -> list[tuple[str, list[str], str | None]]:
    """Send an invalid change, and return its errors as code, path and allowed values."""
    before = await all_rows(sql)
    payload = await update_segment_members(api, slug, **fields)
    assert await all_rows(sql) == before
    assert payload["segment"] is None
    assert payload["counts"] == []
    return [(error["code"], error["path"], error.get("allowed")) for error in payload["errors"]]


async def test_unknown_slug_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    payload = await update_segment_members(api, "NOPE", add=[1], addKeys=["k"])
    assert payload == {
        "segment": None,
        "counts": [],
        "errors": [
            {
                "__typename": "SegmentNotFound",
                "code": "SEGMENT_NOT_FOUND",
                "message": 'No segment has the slug "NOPE".',
                "path": ["slug"],
                "slugs": ["NOPE"],
            }
        ],
    }
    assert await all_rows(sql) == before


async def test_deleted_segment_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_segment_members(api, "A", add=[1])
    await delete_segment(api, "A")
    for fields in ({"add": [1, 2]}, {"remove": [1]}, {}):
        assert await rejected(api, sql, fields) == [("SEGMENT_NOT_FOUND", ["slug"], None)]


async def test_later_segment_with_the_slug_gets_the_members(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await update_segment_members(api, "A", add=[1])
    await delete_segment(api, "A")
    await make_segments(api, "A")
    assert outcome_counts(await update_segment_members(api, "A", add=[1])) == {"JOINED": 1}
    segment_ids = await sql.fetch("SELECT segment_id FROM memberships ORDER BY 1")
    assert [row["segment_id"] for row in segment_ids] == [1, 2]


@pytest.mark.parametrize("slug", ["", "a b", "_A"])
async def test_invalid_slug_is_rejected(api: Api, sql: Sql, slug: str) -> None:
    assert await rejected(api, sql, {}, slug) == [("INVALID_INPUT", ["slug"], SLUG_ALLOWED)]


@pytest.mark.parametrize("field", ["add", "remove"])
async def test_invalid_id_is_rejected(api: Api, sql: Sql, field: str) -> None:
    await make_segments(api, "A")
    for user_id in BAD_USER_IDS:
        assert await rejected(api, sql, {field: ["1", user_id]}) == [
            ("INVALID_INPUT", [field, "1"], USER_ID_ALLOWED)
        ], ascii(user_id)


@pytest.mark.parametrize("field", ["addKeys", "removeKeys"])
async def test_invalid_key_is_rejected_and_not_quoted(api: Api, sql: Sql, field: str) -> None:
    await make_segments(api, "A")
    for key in ("", "k" * 256, "secret\n", "\x7fsecret"):
        assert await rejected(api, sql, {field: ["k", key]}) == [
            ("INVALID_INPUT", [field, "1"], USER_KEY_ALLOWED)
        ], ascii(key)
    payload = await update_segment_members(api, "A", **{field: ["secret\n"]})
    assert "secret" not in str(payload)


@pytest.mark.parametrize(
    ("fields", "path", "first"),
    [
        ({"add": [3, 5], "remove": [4, 5]}, ["remove", "1"], "add.1"),
        ({"addKeys": ["n", "five"], "removeKeys": ["five"]}, ["removeKeys", "0"], "addKeys.1"),
        ({"addKeys": ["n"], "removeKeys": ["n"]}, ["removeKeys", "0"], "addKeys.0"),
        ({"add": [3, 9], "remove": [9]}, ["remove", "0"], "add.1"),
        ({"addKeys": ["five"], "remove": [4, 5]}, ["remove", "1"], "addKeys.0"),
        ({"add": [5], "removeKeys": ["four", "five"]}, ["removeKeys", "1"], "add.0"),
    ],
)
async def test_user_in_both_lists_is_rejected(
    api: Api, sql: Sql, fields: dict[str, Any], path: list[str], first: str
) -> None:
    """The same user may be named by id and by key."""
    await make_segments(api, "A")
    await create_user(api, id="4", key="four")
    await create_user(api, id="5", key="five")
    before = await all_rows(sql)
    payload = await update_segment_members(api, "A", **fields)
    assert payload["errors"] == [
        {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": f"{'.'.join(path)} is not valid: the user is already in {first}."
            f" Allowed: {ONE_LIST}.",
            "path": path,
            "allowed": ONE_LIST,
        }
    ]
    assert await all_rows(sql) == before


async def test_every_user_in_both_lists_is_named(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await create_user(api, id="5", key="five")
    assert await rejected(api, sql, {"add": [5, 6], "remove": [6, 6, 5]}) == [
        ("INVALID_INPUT", ["remove", position], ONE_LIST) for position in ("0", "1", "2")
    ]
    assert await rejected(api, sql, {"addKeys": ["five"], "remove": [5, 6, 5]}) == [
        ("INVALID_INPUT", ["remove", position], ONE_LIST) for position in ("0", "2")
    ]


async def test_all_errors_of_the_input_are_returned_at_once(api: Api, sql: Sql) -> None:
    fields = {
        "add": [0, 7],
        "remove": [7],
        "addKeys": [""],
        "ttlSeconds": 0,
        "expiresAt": "2030-01-01T00:00:00Z",
    }
    assert await rejected(api, sql, fields, "") == [
        ("INVALID_INPUT", ["slug"], SLUG_ALLOWED),
        ("INVALID_INPUT", ["add", "0"], USER_ID_ALLOWED),
        ("INVALID_INPUT", ["remove", "0"], ONE_LIST),
        ("INVALID_INPUT", ["addKeys", "0"], USER_KEY_ALLOWED),
        ("INVALID_INPUT", ["ttlSeconds"], TTL_ALLOWED),
        ("INVALID_INPUT", ["expiresAt"], "at most one of `ttlSeconds` and `expiresAt`"),
    ]


async def test_end_out_of_range_is_rejected(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    for seconds in (0, -1, MAX_TTL_SECONDS + 1):
        assert await rejected(api, sql, {"add": [1], "ttlSeconds": seconds}) == [
            ("INVALID_INPUT", ["ttlSeconds"], TTL_ALLOWED)
        ]
    ends = [
        (await sql.fetchval("SELECT clock_timestamp() + $1::text::interval", interval)).isoformat()
        for interval in ("-1 second", "0 seconds", "315360060 seconds")
    ]
    for end in (*ends, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        for add in ([1], []):
            assert await rejected(api, sql, {"add": add, "addKeys": ["k"], "expiresAt": end}) == [
                ("INVALID_INPUT", ["expiresAt"], TTL_ALLOWED)
            ]


@pytest.mark.parametrize(
    ("lengths", "total"),
    [((1001, 0, 0, 0), 1001), ((0, 0, 0, 1001), 1001), ((251, 250, 250, 250), 1001)],
)
async def test_more_than_a_thousand_users_exceed_a_limit(
    api: Api, sql: Sql, lengths: tuple[int, ...], total: int
) -> None:
    await make_segments(api, "A")
    before = await all_rows(sql)
    fields = {
        name: ["1"] * length  # repeats count, too
        for name, length in zip(("add", "remove", "addKeys", "removeKeys"), lengths, strict=True)
    }
    error = await api.error(UPDATE_SEGMENT_MEMBERS, input={"slug": "A", **fields})
    assert error["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "argument": "input",
        "limit": 1000,
        "value": total,
    }
    assert await all_rows(sql) == before


async def test_value_of_the_wrong_type_is_a_bad_request_that_names_it(api: Api, sql: Sql) -> None:
    invalid_values: tuple[tuple[dict[str, Any], str], ...] = (
        ({"add": [None]}, "input.add.0"),
        ({"remove": ["1", 1.5]}, "input.remove.1"),
        ({"addKeys": [5]}, "input.addKeys.0"),
        ({"removeKeys": ["k", None]}, "input.removeKeys.1"),
        ({"onExcluded": "skip"}, "input.onExcluded"),
        ({"onExisting": "ADD"}, "input.onExisting"),
        ({"ttlSeconds": "60"}, "input.ttlSeconds"),
    )
    await make_segments(api, "A")
    before = await all_rows(sql)
    for fields, argument in invalid_values:
        error = await api.error(UPDATE_SEGMENT_MEMBERS, input={"slug": "A", "add": ["7"], **fields})
        assert error["extensions"]["code"] == "BAD_REQUEST"
        assert error["extensions"]["argument"] == argument
    assert await all_rows(sql) == before


async def test_end_that_passes_after_the_locks_is_rejected(
    api: Api, sql: Sql, database: Database
) -> None:
    """A large import may reach its last users after the end that it requests."""
    await make_segments(api, "A")
    await update_segment_members(api, "A", add=[1])
    before = await all_rows(sql)
    past = await database_now(sql)

    async def add(session: Any) -> dict[RowOutcome, Any]:
        await lock_segment_for_members(session, "A", store_ids=[1, 2])
        await lock_users(session, store_ids=[1, 2])
        return await add_members(
            session,
            segment_id=1,
            user_ids=[1, 2],
            expiry=Expiry(expires_at=past + timedelta(microseconds=1)),
        )

    with pytest.raises(MutationRejected) as rejection:
        await database.transaction(add)
    (reason,) = rejection.value.reasons
    assert isinstance(reason, InvalidInput)
    assert reason.path == ("expiresAt",)
    assert await all_rows(sql) == before
