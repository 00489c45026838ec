"""`rollout_passes` has each pass of a rollout: its sample, its bound and when it finished."""

from decimal import Decimal
from typing import Any

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.passes import StepOutcome
from tests.back_dating import advance_time
from tests.conftest import Api, Sql
from tests.operations import create_segment, delete_segment
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    pause_rollout,
    resume_rollout,
    set_rollout,
)
from tests.rollouts.helpers import (
    begin_pass,
    begin_pass_with_sample,
    expected_sample,
    read_rollout,
    store_sample,
    store_users,
    take_sample,
    work_chunk,
)
from tests.rollouts.rollout_states import fail_rollout
from tests.timeline import HOUR

UNSAMPLED = (None, None, None, None, None)


async def passes(sql: Sql) -> list[tuple[Any, ...]]:
    """Return stage, percent, removes_members, is_withdrawal, users_total and is_finished."""
    rows = await sql.fetch(
        """
        SELECT stage, percent, removes_members, is_withdrawal, users_total,
            finished_at IS NOT NULL
        FROM rollout_passes ORDER BY segment_id, pass_number
        """
    )
    return [tuple(row) for row in rows]


async def last_sample(sql: Sql) -> tuple[Any, ...]:
    """Return the sample of the last pass."""
    row = await sql.fetchrow(
        """
        SELECT sampled_at, last_insert_seq, bound_hash, bound_user_id, users_total
        FROM rollout_passes ORDER BY pass_number DESC LIMIT 1
        """
    )
    return tuple(row or ())


async def test_pass_has_its_sample_and_its_times(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 40)
    await create_segment(api, slug="A", rollout={"percent": 25})
    assert await passes(sql) == []
    pending = await begin_pass(database, 1)
    assert await passes(sql) == [(1, Decimal(25), False, False, None, False)]
    assert await last_sample(sql) == UNSAMPLED
    await store_users(sql, 10, first=101)  # The pass counts all users that are stored before it.
    sample = await take_sample(database, pending)
    await store_sample(database, pending, sample)
    _, *stored = await last_sample(sql)
    assert stored == [sample.last_insert_seq, sample.bound_hash, sample.bound_user_id, 50]
    assert sample.last_insert_seq == await sql.fetchval("SELECT max(insert_seq) FROM users")
    assert await work_chunk(database, 1) is StepOutcome.NO_WORK
    row = await sql.fetchrow("SELECT * FROM rollout_passes")
    rollout = await sql.fetchrow("SELECT * FROM rollouts")
    assert row is not None
    assert rollout is not None
    assert row["started_at"] < row["sampled_at"] < row["finished_at"] == rollout["heartbeat_at"]
    for column in ("pass_number", "last_insert_seq", "bound_hash", "bound_user_id", "users_total"):
        assert row[column] == rollout[column]


async def test_bound_of_a_pass_separates_its_sample(api: Api, sql: Sql, database: Database) -> None:
    users = await store_users(sql, 200)
    await create_segment(api, slug="A", rollout={"percent": 12.5})
    await advance_rollout(database, 1)
    inside = await sql.fetch(
        """
        SELECT u.id FROM users u JOIN rollout_passes p ON u.insert_seq <= p.last_insert_seq
        WHERE (rollout_hash_v1(p.segment_id, u.id), u.id) <= (p.bound_hash, p.bound_user_id)
        """
    )
    assert {row["id"] for row in inside} == expected_sample(1, users, 12.5)


async def test_each_stage_has_its_own_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 20)
    stages = [{"percent": percent, "afterSeconds": 3600} for percent in (10, 50, 20, 75)]
    await create_segment(api, slug="A", rollout={"stages": stages})
    await advance_rollout(database, 1)
    assert await passes(sql) == []  # No stage has started.
    for _ in range(3):
        await advance_time(sql, HOUR)
        await advance_rollout(database, 1)
    expected = [
        (1, Decimal(10), False, False, 20, True),
        (2, Decimal(50), False, False, 20, True),
        (3, Decimal(20), True, False, 20, True),
    ]
    assert await passes(sql) == expected
    await store_users(sql, 5, first=100)
    await advance_time(sql, HOUR)
    await advance_rollout(database, 1)
    assert await passes(sql) == [*expected, (4, Decimal(75), False, False, 25, True)]


async def test_each_plan_has_its_own_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    for percent in (50, 75, 25, 0):
        accepted_rollout(await set_rollout(api, {"percent": percent}))
        await advance_rollout(database, 1)
    assert await passes(sql) == [
        (1, Decimal(50), False, False, 20, True),
        (1, Decimal(50), True, False, 20, True),
        (1, Decimal(75), False, False, 20, True),
        (1, Decimal(25), True, False, 20, True),
        # A pass of 0 percent goes through the members that the rollout added.
        (1, Decimal(0), True, False, 5, True),
    ]
    rows = await sql.fetch("SELECT pass_number FROM rollout_passes ORDER BY started_at")
    numbers = [row["pass_number"] for row in rows]
    assert numbers == sorted(set(numbers))


async def test_withdrawal_is_a_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    assert len(await passes(sql)) == 1
    await advance_rollout(database, 1)
    assert (await passes(sql))[1:] == [(1, Decimal(0), True, True, 10, True)]
    assert (await last_sample(sql))[2:4] == (-1, 0)


async def test_cancellation_alone_has_no_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    accepted_rollout(await cancel_rollout(api))
    await advance_rollout(database, 1)
    assert await passes(sql) == [(1, Decimal(50), False, False, 20, True)]


async def test_pass_that_is_replaced_stays_unfinished(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    begun = await begin_pass(database, 1)
    late = await take_sample(database, begun)
    accepted_rollout(await set_rollout(api, {"percent": 60}))
    await store_sample(database, begun, late)  # It is too late, so it is discarded.
    await begin_pass_with_sample(database, 1)
    accepted_rollout(await set_rollout(api, {"percent": 70}))
    await advance_rollout(database, 1)
    assert await passes(sql) == [
        (1, Decimal(50), False, False, None, False),
        (1, Decimal(60), False, False, 20, False),
        (1, Decimal(70), False, False, 20, True),
    ]


async def test_pass_continues_in_its_row_after_a_crash(
    api: Api, sql: Sql, database: Database
) -> None:
    """A worker crashes before the sample, and another one between two chunks."""
    await store_users(sql, CHUNK_USERS + 10)
    await create_segment(api, slug="A", rollout={"percent": 50})
    begun = await begin_pass(database, 1)
    started_at = await sql.fetchval("SELECT started_at FROM rollout_passes")
    await take_sample(database, begun)
    assert await last_sample(sql) == UNSAMPLED
    assert await begin_pass_with_sample(database, 1)
    sample = await last_sample(sql)
    assert await work_chunk(database, 1) is StepOutcome.MORE_WORK
    assert await passes(sql) == [(1, Decimal(50), False, False, CHUNK_USERS + 10, False)]
    await advance_rollout(database, 1)
    assert await passes(sql) == [(1, Decimal(50), False, False, CHUNK_USERS + 10, True)]
    assert await last_sample(sql) == sample
    assert await sql.fetchval("SELECT started_at FROM rollout_passes") == started_at


async def test_pause_and_failure_continue_the_pass(api: Api, sql: Sql, database: Database) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await begin_pass_with_sample(database, 1)
    sample = await last_sample(sql)
    accepted_rollout(await pause_rollout(api))
    accepted_rollout(await resume_rollout(api))
    await fail_rollout(database)
    accepted_rollout(await resume_rollout(api))
    assert await passes(sql) == [(1, Decimal(50), False, False, 20, False)]
    await advance_rollout(database, 1)
    assert await passes(sql) == [(1, Decimal(50), False, False, 20, True)]
    assert await last_sample(sql) == sample


async def test_users_that_are_enrolled_later_change_no_pass(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50, "enrollNewUsers": True})
    await advance_rollout(database, 1)
    before = await sql.fetch("SELECT * FROM rollout_passes")
    await store_users(sql, 100, first=1000)
    await advance_rollout(database, 1)
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE user_id >= 1000") > 20
    assert await sql.fetch("SELECT * FROM rollout_passes") == before


async def test_pass_of_a_deleted_segment_stays_unfinished(
    api: Api, sql: Sql, database: Database
) -> None:
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    await begin_pass_with_sample(database, 1)
    await delete_segment(api, "A")
    await advance_rollout(database, 1)
    assert await passes(sql) == [(1, Decimal(50), False, False, 20, False)]


async def test_pass_that_began_before_the_log_finishes_without_a_row(
    api: Api, sql: Sql, database: Database
) -> None:
    """A process of the previous version began the pass."""
    await store_users(sql, 20)
    await create_segment(api, slug="A", rollout={"percent": 50})
    pending = await begin_pass(database, 1)
    await sql.execute("DELETE FROM rollout_passes")
    await store_sample(database, pending, await take_sample(database, pending))
    assert await work_chunk(database, 1) is StepOutcome.NO_WORK
    assert (await read_rollout(database, 1)).status == "COMPLETED"
    assert await passes(sql) == []
