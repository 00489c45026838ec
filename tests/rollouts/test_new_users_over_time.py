"""New users join depending on the status, the schedule and the expiry of the rollout."""

from datetime import timedelta

import pytest

from segmentql.adapters.database import Database
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import passes, service
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import MAX_FAILURES
from segmentql.users.service import delete_user
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.operations import delete_segment
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    cancel,
    create_enrolling_segment,
    history_counts,
    members,
    set_plan,
    stage,
    store_users,
)
from tests.timeline import (
    HOUR,
    MICROSECOND,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
)


async def joined_now(sql: Sql, segment_id: int) -> set[int]:
    """Store ten users; return the ids of those who join."""
    first = 1 + await sql.fetchval("SELECT coalesce(max(id), 0) FROM users")
    users = await store_users(sql, 10, first=first)
    return set(await members(sql, segment_id)) & set(users)


async def test_new_users_do_not_join_if_enrollment_is_off(sql: Sql, database: Database) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100, enroll_new_users=False)
    assert await joined_now(sql, segment_id) == set()
    await set_plan(database, "A", 100, enroll_new_users=False)
    assert await joined_now(sql, segment_id) == set()
    await advance_rollout(database, segment_id)
    assert len(await members(sql, segment_id)) == 20


async def test_new_users_join_at_the_current_stage_without_a_worker(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(100, after=HOUR), stage(0, after=HOUR))
    assert await joined_now(sql, segment_id) == set()
    await advance_time(sql, HOUR)
    assert await joined_now(sql, segment_id) == set(range(11, 21))
    await advance_time(sql, HOUR)
    assert await joined_now(sql, segment_id) == set()


async def test_new_users_join_before_during_and_after_a_pass(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 100)
    assert await joined_now(sql, segment_id) == set(range(1, 11))
    await begin_pass_with_sample(database, segment_id)
    assert await joined_now(sql, segment_id) == set(range(11, 21))
    await advance_rollout(database, segment_id)
    assert await joined_now(sql, segment_id) == set(range(21, 31))
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 30}


async def test_new_users_join_at_the_percent_in_force_during_a_pause(
    sql: Sql, database: Database
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 0)
    await set_plan(database, "A", 100, stage(0, after=HOUR))
    await database.transaction(
        lambda session: service.pause_rollout(session, slug="A", actor=NO_ACTOR)
    )
    await advance_time(sql, 2 * HOUR)  # the second stage is not due, because the schedule is frozen
    assert len(await joined_now(sql, segment_id)) == 10
    await database.transaction(
        lambda session: service.resume_rollout(session, slug="A", actor=NO_ACTOR)
    )
    assert len(await joined_now(sql, segment_id)) == 10
    await advance_time(sql, 2 * HOUR)
    assert await joined_now(sql, segment_id) == set()


async def test_new_users_join_a_failed_rollout_but_not_a_failed_withdrawal(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")

    async def fail() -> None:
        for _ in range(MAX_FAILURES):
            await database.transaction(lambda s: passes.record_failure(s, segment_id, "of a test"))

    await set_plan(database, "A", 100)
    await fail()
    assert len(await joined_now(sql, segment_id)) == 10
    await cancel(database, "A", withdraw=True)
    assert await joined_now(sql, segment_id) == set()
    await fail()
    assert await joined_now(sql, segment_id) == set()


@pytest.mark.parametrize("withdraw", [False, True])
async def test_new_users_do_not_join_a_cancelled_rollout(
    sql: Sql,
    database: Database,
    withdraw: bool,  # noqa: FBT001 - a test parameter
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    await cancel(database, "A", withdraw=withdraw)
    assert await joined_now(sql, segment_id) == set()
    await advance_rollout(database, segment_id)
    assert await joined_now(sql, segment_id) == set()


async def test_new_users_get_the_expiry_and_do_not_join_after_it(
    sql: Sql, database: Database
) -> None:
    end = await database_now(sql) + HOUR
    segment_id = await create_enrolling_segment(sql, database, "A", 100, expires_at=end)
    await store_users(sql, 2)
    rows = await sql.fetch("SELECT * FROM memberships")
    assert [row["expires_at"] for row in rows] == [end, end]
    assert [row["updated_at"] for row in rows] == [row["joined_at"] for row in rows]
    await advance_time(sql, HOUR)
    assert await joined_now(sql, segment_id) == set()


async def test_new_users_join_neither_a_deleted_segment_nor_its_successor(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    assert (await delete_segment(api, "A"))["errors"] == []
    successor = await make_segment(sql, "A")
    await store_users(sql, 10)
    assert await history_counts(sql, segment_id) == await history_counts(sql, successor) == {}
    assert await history_inconsistencies(sql) == {}


# --- Moments -------------------------------------------------------------------------------------


async def test_recreated_user_joins_after_all_of_its_history(sql: Sql, database: Database) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    await store_users(sql, 1)
    await database.transaction(lambda session: delete_user(session, 1, actor=NO_ACTOR))
    # Simulate a clock that was set back.
    ahead = timedelta(minutes=5)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE history SET at = at + $1::interval WHERE user_id = 1", ahead)
    await sql.execute("SET session_replication_role = DEFAULT")
    left = (await history_entries(sql, 1))[-1]
    assert left.at > await database_now(sql)
    await store_users(sql, 2)
    rejoin = (await history_entries(sql, 1))[-1]
    assert (rejoin.operation, rejoin.at) == ("JOINED", left.at + MICROSECOND)
    (other,) = await history_entries(sql, 2)
    assert other.at < await database_now(sql)
    assert set(await members(sql, segment_id)) == {1, 2}
    assert await history_inconsistencies(sql) == {}
