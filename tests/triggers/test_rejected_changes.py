"""Triggers reject updates and TRUNCATE if history would not be true afterwards."""

from datetime import timedelta

import asyncpg
import pytest

from tests.conftest import Sql
from tests.timeline import HOUR, add_membership, history_entries, make_segment, make_users

NEW_ID = "id = id + 1000"
REJOIN = f"{NEW_ID}, joined_at = clock_timestamp(), updated_at = clock_timestamp()"


@pytest.mark.parametrize(
    ("ends_in", "change"),
    [
        pytest.param(-HOUR, "expires_at = NULL, updated_at = clock_timestamp()", id="revived"),
        pytest.param(-HOUR, "actor = 'ada', updated_at = clock_timestamp()", id="touched-late"),
        pytest.param(HOUR, f"{REJOIN}, expires_at = NULL", id="replaced-while-it-runs"),
        pytest.param(None, REJOIN, id="replaced-while-endless"),
        pytest.param(None, "joined_at = joined_at - interval '1 s'", id="joined-at-moved"),
        pytest.param(
            -HOUR,
            f"{NEW_ID}, joined_at = expires_at, updated_at = expires_at, expires_at = NULL",
            id="rejoined-at-its-end",
        ),
    ],
)
async def test_update_that_history_cannot_record_is_rejected(
    sql: Sql, service: Sql, ends_in: timedelta | None, change: str
) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"), ends_in=ends_in)
    before = await sql.fetch("SELECT * FROM memberships"), await history_entries(sql)
    with pytest.raises(
        asyncpg.IntegrityConstraintViolationError, match="history would not be true"
    ):
        await service.execute(f"UPDATE memberships SET {change}")
    assert (await sql.fetch("SELECT * FROM memberships"), await history_entries(sql)) == before


@pytest.mark.parametrize("column", ["user_id", "segment_id"])
async def test_owner_cannot_change_user_or_segment_of_a_membership(
    sql: Sql, owner: Sql, column: str
) -> None:
    await make_segment(sql, "A")
    await make_segment(sql, "B")
    await make_users(sql, 8)
    await add_membership(sql, 7, 1)
    with pytest.raises(
        asyncpg.IntegrityConstraintViolationError, match="history would not be true"
    ):
        await owner.execute(f"UPDATE memberships SET {column} = {column} + 1")
    assert await sql.fetchval("SELECT (user_id, segment_id) FROM memberships") == (7, 1)


async def test_one_invalid_row_rejects_the_whole_update(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id)
    await add_membership(sql, 2, segment_id, ends_in=-HOUR)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await service.execute(
            "UPDATE memberships SET updated_at = clock_timestamp(), actor = 'ada'"
        )
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE actor = 'ada'") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE memberships",
        "TRUNCATE history",
        "TRUNCATE history_default",
        "TRUNCATE ONLY history",
        "TRUNCATE users, memberships, exclusions",
        "TRUNCATE users CASCADE",
        "TRUNCATE segments CASCADE",
        "TRUNCATE exclusion_log",
        "TRUNCATE user_lifetimes",
        "TRUNCATE rollout_events",
        "TRUNCATE rollout_passes",
    ],
)
async def test_truncate_is_rejected_even_for_the_owner(
    sql: Sql, owner: Sql, statement: str
) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    for connection in (owner, sql):
        with pytest.raises(
            (asyncpg.IntegrityConstraintViolationError, asyncpg.WrongObjectTypeError)
        ):
            await connection.execute(statement)
    assert len(await history_entries(sql)) == 1
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 1


async def test_truncate_of_a_partition_is_rejected(sql: Sql, owner: Sql) -> None:
    await sql.execute("SELECT make_history_partitions('2031-05-01', 1)")
    partitions = [
        row["name"]
        for row in await sql.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
            "WHERE inhparent = 'history'::regclass"
        )
    ]
    assert {"history_default", "history_2031_05"} < set(partitions)
    for partition in partitions:
        with pytest.raises(
            asyncpg.IntegrityConstraintViolationError, match="is refused: history would not be true"
        ):
            await owner.execute(f"TRUNCATE {partition}")
