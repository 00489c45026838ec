"""Triggers record joins and leaves in history, with their times, causes and actors."""

from datetime import datetime, timedelta

from tests.conftest import Sql
from tests.timeline import (
    HOUR,
    MICROSECOND,
    SECOND,
    Entry,
    add_members,
    add_membership,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
    make_users,
    mark_deleted,
)
from tests.triggers.conftest import AT, JOIN


async def entries_of(sql: Sql, user_id: int) -> list[tuple[datetime, str, str, str | None]]:
    return [(e.at, e.operation, e.cause, e.actor) for e in await history_entries(sql, user_id)]


async def test_insert_records_a_join_with_the_values_of_the_row(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 7)
    before = await database_now(sql)
    membership_id = await service.fetchval(JOIN, 7, segment_id, AT, None, "ROLLOUT", "ada")
    assert await history_entries(sql) == [
        Entry(AT, "JOINED", 7, segment_id, membership_id, "ROLLOUT", "ada")
    ]
    assert before < await sql.fetchval("SELECT recorded_at FROM history") < await database_now(sql)


async def test_update_of_end_cause_or_actor_records_no_entry(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"), ends_in=HOUR)
    joined = await history_entries(sql)
    await service.execute(
        """
        UPDATE memberships SET expires_at = expires_at + interval '1 hour', cause = 'ROLLOUT',
            actor = 'ada', updated_at = clock_timestamp()
        """
    )
    await service.execute("UPDATE memberships SET expires_at = NULL")
    assert await history_entries(sql) == joined
    assert await sql.fetchval("SELECT id FROM memberships") == membership["id"]


async def test_delete_records_a_leave_with_the_session_settings(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"))
    left_at = membership["joined_at"] + HOUR
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', $1, true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'ada', true)
            """,
            left_at.isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    assert await entries_of(sql, 7) == [
        (membership["joined_at"], "JOINED", "MANUAL", None),
        (left_at, "LEFT", "USER_DELETED", "ada"),
    ]


async def test_delete_without_settings_is_manual_without_an_actor(sql: Sql, service: Sql) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    before = await database_now(sql)
    await service.execute("DELETE FROM memberships")
    after = await database_now(sql)
    leave = await sql.fetchrow("SELECT * FROM history WHERE operation = 'LEFT'")
    assert leave is not None
    assert before < leave["at"] < after
    assert (leave["cause"], leave["actor"], leave["recorded_at"]) == ("MANUAL", None, leave["at"])


async def test_settings_end_with_their_transaction(sql: Sql, service: Sql) -> None:
    await add_membership(sql, 7, await make_segment(sql, "A"))
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', '2026-01-01T00:00:00Z', true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'ada', true)
            """
        )
    before = await database_now(sql)
    await service.execute("DELETE FROM memberships")
    left_at, operation, cause, actor = (await entries_of(sql, 7))[-1]
    assert (operation, cause, actor) == ("LEFT", "MANUAL", None)
    assert left_at > before


async def test_leave_is_always_dated_after_its_join(sql: Sql, service: Sql) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"))
    async with service.transaction():
        await service.execute(
            "SELECT set_config('segmentql.moment', $1, true)",
            (membership["joined_at"] - HOUR).isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    assert [(at, operation) for at, operation, *_ in await entries_of(sql, 7)] == [
        (membership["joined_at"], "JOINED"),
        (membership["joined_at"] + MICROSECOND, "LEFT"),
    ]


async def test_delete_of_many_rows_dates_each_leave_separately(sql: Sql, service: Sql) -> None:
    alive, deleted = await make_segment(sql, "A"), await make_segment(sql, "B")
    endless = await add_membership(sql, 1, alive)
    ran_out = await add_membership(sql, 2, alive, ends_in=-HOUR)
    of_gone = await add_membership(sql, 3, deleted)
    out_before_gone = await add_membership(sql, 4, deleted, ends_in=-HOUR)
    gone_before_out = await add_membership(sql, 5, deleted, ends_in=-SECOND)
    gone_before_its_end = await add_membership(sql, 6, deleted, ends_in=HOUR)
    deleted_at = await mark_deleted(sql, deleted, ago=timedelta(minutes=1), by="ada")
    left_at = await database_now(sql)
    async with service.transaction():
        await service.execute(
            """
            SELECT set_config('segmentql.moment', $1, true),
                set_config('segmentql.cause', 'USER_DELETED', true),
                set_config('segmentql.actor', 'bob', true)
            """,
            left_at.isoformat(),
        )
        await service.execute("DELETE FROM memberships")
    leaves = {
        e.user_id: (e.at, e.membership_id, e.cause, e.actor)
        for e in await history_entries(sql)
        if e.operation == "LEFT"
    }
    assert leaves == {
        1: (left_at, endless["id"], "USER_DELETED", "bob"),
        2: (ran_out["expires_at"], ran_out["id"], "TTL", None),
        3: (deleted_at, of_gone["id"], "SEGMENT_DELETED", "ada"),
        4: (out_before_gone["expires_at"], out_before_gone["id"], "TTL", None),
        5: (deleted_at, gone_before_out["id"], "SEGMENT_DELETED", "ada"),
        6: (deleted_at, gone_before_its_end["id"], "SEGMENT_DELETED", "ada"),
    }


async def test_statement_without_changed_rows_records_no_entry(sql: Sql, service: Sql) -> None:
    await make_segment(sql, "A")
    await service.execute("DELETE FROM memberships")
    await service.execute("UPDATE memberships SET actor = 'ada'")
    assert await history_entries(sql) == []


async def test_rejoin_after_expiry_records_the_leave_and_the_join(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    old = await add_membership(sql, 7, segment_id, ends_in=-HOUR)
    rejoined_at = old["expires_at"] + timedelta(minutes=1)
    new_id = await service.fetchval(
        """
        UPDATE memberships SET id = id + 1000, joined_at = $1, updated_at = $1,
            expires_at = NULL, cause = 'ROLLOUT', actor = 'ada'
        RETURNING id
        """,
        rejoined_at,
    )
    assert await history_entries(sql) == [
        Entry(old["joined_at"], "JOINED", 7, segment_id, old["id"], "MANUAL", None),
        Entry(old["expires_at"], "LEFT", 7, segment_id, old["id"], "TTL", None),
        Entry(rejoined_at, "JOINED", 7, segment_id, new_id, "ROLLOUT", "ada"),
    ]


async def test_large_change_is_fast_with_the_plan_of_a_small_one(sql: Sql, service: Sql) -> None:
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, 20_000)
    await service.execute("SET statement_timeout = '10s'")
    for user_ids in ([1], [1, 2], list(range(1, 20_001))):
        await service.execute(
            """
            UPDATE memberships
            SET expires_at = clock_timestamp() + interval '1 hour', updated_at = clock_timestamp()
            WHERE user_id = ANY($1::bigint[])
            """,
            user_ids,
        )
    await sql.execute(
        """
        UPDATE memberships
        SET expires_at = joined_at + interval '1 minute', updated_at = joined_at
        """
    )
    await service.execute(
        """
        UPDATE memberships SET id = id + 100000, joined_at = clock_timestamp(),
            updated_at = clock_timestamp(), expires_at = NULL
        """
    )
    assert await sql.fetchval("SELECT count(*) FROM history") == 60_000
    assert await history_inconsistencies(sql) == {}
