"""Adding an active or expired member again follows `onExisting`, `ttlSeconds` and `expiresAt`."""

from datetime import timedelta
from typing import Any

import pytest

from segmentql.validators import MAX_TTL_SECONDS
from tests.back_dating import HOUR, MICROSECOND, NOON, insert_membership
from tests.conftest import Api, Sql
from tests.operations import change_counts, make_segments, parse_timestamp, update_user_segments

EARLY, LATE = "2030-01-01T00:00:00.000000Z", "2031-01-01T00:00:00.000000Z"


async def only_membership(api: Api, user_id: int = 7) -> Any:
    query = """query($id: ID!) { user(id: $id) { memberships {
      id joinedAt updatedAt expiresAt cause } } }"""
    (membership,) = (await api(query, id=str(user_id)))["user"]["memberships"]
    return membership


async def history(sql: Sql) -> list[tuple[Any, ...]]:
    rows = await sql.fetch("SELECT operation, at, cause FROM history ORDER BY at, operation")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("on_existing", "ends"),
    [
        (
            "EXTEND",  # the later of the two ends; no end is later than any end
            [
                (EARLY, LATE, LATE),
                (LATE, EARLY, LATE),
                (LATE, LATE, LATE),
                (EARLY, None, None),
                (None, EARLY, None),
                (None, None, None),
            ],
        ),
        (
            "REPLACE",  # the requested end
            [
                (EARLY, LATE, LATE),
                (LATE, EARLY, EARLY),
                (LATE, LATE, LATE),
                (EARLY, None, None),
                (None, EARLY, EARLY),
                (None, None, None),
            ],
        ),
        (
            "KEEP",  # no change
            [
                (EARLY, LATE, EARLY),
                (LATE, EARLY, LATE),
                (EARLY, None, EARLY),
                (None, EARLY, None),
                (None, None, None),
            ],
        ),
    ],
)
async def test_on_existing_combines_the_old_and_the_requested_end(
    api: Api, sql: Sql, on_existing: str, ends: list[tuple[str | None, str | None, str | None]]
) -> None:
    await make_segments(api, "A")
    for user_id, (old_end, requested_end, new_end) in enumerate(ends, start=1):
        await update_user_segments(api, user_id, add=["A"], expiresAt=old_end)
        before, rows = await only_membership(api, user_id), await history(sql)
        payload = await update_user_segments(
            api, user_id, add=["A"], expiresAt=requested_end, onExisting=on_existing
        )
        after = await only_membership(api, user_id)
        assert payload["errors"] == []
        assert change_counts(payload) == (0, 0, 1 if new_end != old_end else 0)
        assert after["expiresAt"] == new_end, (old_end, requested_end)
        assert {**after, "expiresAt": old_end, "updatedAt": before["updatedAt"]} == before
        assert (after["updatedAt"] > before["updatedAt"]) is (new_end != old_end)
        assert await history(sql) == rows  # no user joined or left


async def test_extend_is_the_default(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], expiresAt=LATE)
    for options in ({}, {"onExisting": None}):
        await update_user_segments(api, 7, add=["A"], expiresAt=EARLY, **options)
        assert (await only_membership(api))["expiresAt"] == LATE


async def test_each_slug_is_counted_by_its_outcome(api: Api, sql: Sql) -> None:
    await make_segments(api, "NEW", "SAME", "LONGER", "RAN_OUT", "OUT", "NOT_IN")
    await update_user_segments(api, 7, add=["SAME", "OUT"])
    await update_user_segments(api, 7, add=["LONGER"], expiresAt=EARLY)
    await insert_membership(sql, 7, "RAN_OUT", joined_at=NOON, expires_at=NOON + HOUR)
    payload = await update_user_segments(
        api, 7, add=["NEW", "SAME", "LONGER", "RAN_OUT"], remove=["OUT", "NOT_IN"], expiresAt=LATE
    )
    assert change_counts(payload) == (2, 1, 1)
    ends = {m["segment"]["slug"]: m["expiresAt"] for m in payload["user"]["memberships"]}
    assert ends == {"LONGER": LATE, "NEW": LATE, "RAN_OUT": LATE, "SAME": None}


@pytest.mark.parametrize("seconds", [1, 86_400, MAX_TTL_SECONDS])
async def test_ttl_of_a_new_member_counts_from_the_join(api: Api, seconds: int) -> None:
    await make_segments(api, "A")
    payload = await update_user_segments(api, 7, add=["A"], ttlSeconds=seconds)
    (membership,) = payload["user"]["memberships"]
    lives = parse_timestamp(membership["expiresAt"]) - parse_timestamp(membership["joinedAt"])
    assert lives == timedelta(seconds=seconds)


async def test_ttl_of_an_active_member_counts_from_now(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON)
    await update_user_segments(api, 7, add=["A"], ttlSeconds=60, onExisting="REPLACE")
    membership = await only_membership(api)
    lives = parse_timestamp(membership["expiresAt"]) - parse_timestamp(membership["updatedAt"])
    assert lives == timedelta(seconds=60)
    assert parse_timestamp(membership["joinedAt"]) == NOON


async def test_end_applies_to_every_added_slug_only(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B", "C")
    await update_user_segments(api, 7, add=["C"])
    payload = await update_user_segments(api, 7, add=["A", "B"], remove=["C"], ttlSeconds=60)
    first, second = payload["user"]["memberships"]
    assert first["expiresAt"] == second["expiresAt"]
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 2


async def test_end_accepts_any_utc_offset(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], expiresAt="2030-01-01T03:00:00.1234567+03:00")
    assert (await only_membership(api))["expiresAt"] == "2030-01-01T00:00:00.123456Z"


async def test_either_end_argument_may_be_null(api: Api) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"], ttlSeconds=None, expiresAt=LATE)
    assert (await only_membership(api))["expiresAt"] == LATE
    payload = await update_user_segments(
        api, 7, add=["A"], ttlSeconds=60, expiresAt=None, onExisting="REPLACE"
    )
    assert change_counts(payload) == (0, 0, 1)


@pytest.mark.parametrize("on_existing", ["EXTEND", "REPLACE", "KEEP"])
async def test_adding_an_expired_member_records_the_leave_and_rejoins(
    api: Api, sql: Sql, on_existing: str
) -> None:
    await make_segments(api, "A")
    old = await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    payload = await update_user_segments(api, 7, add=["A"], onExisting=on_existing, expiresAt=EARLY)
    assert change_counts(payload) == (1, 0, 0)
    membership = await only_membership(api)
    joined_at = parse_timestamp(membership["joinedAt"])
    assert membership["id"] != f"mem_{old}"
    assert membership["expiresAt"] == EARLY
    assert membership["cause"] == "MANUAL"
    assert await history(sql) == [
        ("JOINED", NOON, "MANUAL"),
        ("LEFT", NOON + HOUR, "TTL"),
        ("JOINED", joined_at, "MANUAL"),
    ]
    assert joined_at > NOON + HOUR


async def test_adding_a_member_with_a_recorded_leave_rejoins(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await insert_membership(sql, 7, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await sql.execute("DELETE FROM memberships WHERE expires_at <= now()")
    payload = await update_user_segments(api, 7, add=["A"])
    assert change_counts(payload) == (1, 0, 0)
    assert [(row[0], row[2]) for row in await history(sql)] == [
        ("JOINED", "MANUAL"),
        ("LEFT", "TTL"),
        ("JOINED", "MANUAL"),
    ]


async def test_rejoin_right_after_the_expiry_is_dated_after_the_leave(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    ended = await sql.fetchval("SELECT clock_timestamp()")
    await insert_membership(sql, 7, "A", joined_at=ended - HOUR, expires_at=ended)
    await update_user_segments(api, 7, add=["A"])
    (_, left, joined) = await history(sql)
    assert left[1] == ended
    assert joined[1] > ended


async def test_history_stays_in_order_if_it_is_ahead_of_the_clock(api: Api, sql: Sql) -> None:
    await make_segments(api, "A", "B")
    future = HOUR + await sql.fetchval(
        "SELECT clock_timestamp()"
    )  # as if the clock had been set back since
    await insert_membership(sql, 7, "A", joined_at=future)
    await update_user_segments(api, 7, add=["B"], remove=["A"])
    assert await history(sql) == [
        ("JOINED", future, "MANUAL"),
        ("LEFT", future + MICROSECOND, "MANUAL"),
        ("JOINED", future + MICROSECOND, "MANUAL"),
    ]


@pytest.mark.parametrize(
    ("on_existing", "cause", "expires_at"),
    [("EXTEND", "MANUAL", LATE), ("REPLACE", "MANUAL", EARLY), ("KEEP", "ROLLOUT", LATE)],
)
async def test_adding_a_rollout_member_makes_it_manual_except_with_keep(
    api: Api, sql: Sql, on_existing: str, cause: str, expires_at: str
) -> None:
    await make_segments(api, "A")
    number = await insert_membership(
        sql, 7, "A", joined_at=NOON, expires_at=parse_timestamp(LATE), cause="ROLLOUT"
    )
    rows = await history(sql)
    payload = await update_user_segments(api, 7, add=["A"], expiresAt=EARLY, onExisting=on_existing)
    membership = await only_membership(api)
    assert change_counts(payload) == (0, 0, 1 if expires_at != LATE else 0)
    assert (membership["cause"], membership["expiresAt"]) == (cause, expires_at)
    assert membership["id"] == f"mem_{number}"
    assert parse_timestamp(membership["joinedAt"]) == NOON
    assert await history(sql) == rows
