"""A pass stops correctly if its rollout is cancelled or withdrawn, or its segment is deleted."""

from decimal import Decimal

from segmentql.adapters.database import Database
from segmentql.memberships import actors as membership_actors
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.passes import StepOutcome
from tests.conftest import Api, Sql
from tests.operations import delete_segment
from tests.rollouts.helpers import (
    begin_pass_with_sample,
    cancel,
    excluded,
    history_counts,
    members,
    read_rollout,
    set_plan,
    store_users,
    update_manually,
    work_chunk,
)
from tests.rollouts.interrupted_passes import assert_exact, first_chunk
from tests.timeline import history_inconsistencies


async def test_cancelling_between_two_chunks_keeps_members_and_adds_none(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    await cancel(database, "A")
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == set(users[:CHUNK_USERS])
    rollout = await read_rollout(database, segment_id)
    assert (str(rollout.status), rollout.percent) == ("CANCELLED", Decimal(100))
    await set_plan(database, "A", 1)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 1)


async def test_withdrawing_between_two_chunks_removes_rollout_members_only(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    last = users[-1]
    await update_manually(database, 1, add=["A"])
    await update_manually(database, last, add=["A"])
    await update_manually(database, 2, remove=["A"])
    await cancel(database, "A", withdraw=True)
    unfinished = await read_rollout(database, segment_id)
    assert (str(unfinished.status), unfinished.percent) == ("WITHDRAWING", Decimal(0))
    await advance_rollout(database, segment_id)
    done = await read_rollout(database, segment_id)
    assert (str(done.status), done.percent) == ("CANCELLED", Decimal(0))
    assert await members(sql, segment_id) == {1: "MANUAL", last: "MANUAL"}
    assert await excluded(sql, segment_id) == {2}
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): CHUNK_USERS,
        ("JOINED", "MANUAL"): 1,
        ("LEFT", "MANUAL"): 1,
        ("LEFT", "ROLLOUT"): CHUNK_USERS - 2,
    }
    assert await history_inconsistencies(sql) == {}


async def test_plan_set_during_a_withdrawal_reaches_its_own_percent(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    await advance_rollout(database, segment_id)
    await cancel(database, "A", withdraw=True)
    await begin_pass_with_sample(database, segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.MORE_WORK
    assert set(await members(sql, segment_id)) == set(users[CHUNK_USERS:])
    await set_plan(database, "A", 40)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 40)


async def test_deleting_the_segment_between_two_chunks_stops_the_rollout(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    assert (await delete_segment(api, "A"))["errors"] == []
    joined = await history_counts(sql, segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    await advance_rollout(database, segment_id)
    await store_users(sql, 10, first=users[-1] + 1)
    assert await history_counts(sql, segment_id) == joined == {("JOINED", "ROLLOUT"): CHUNK_USERS}
    assert await members(sql, segment_id) == {}
    async with database.read() as session:
        assert await passes.find_due_rollouts(session) == []
    assert (await read_rollout(database, segment_id)).status == "CANCELLED"
    await membership_actors.record_segment_leaves(database, segment_id)
    assert await history_counts(sql, segment_id) == {
        **joined,
        ("LEFT", "SEGMENT_DELETED"): CHUNK_USERS,
    }
    assert await history_inconsistencies(sql) == {}
