"""What comes between two chunks of a pass: another plan, the end of it, crashes, deletions."""

import asyncio
from collections.abc import Iterable
from functools import partial

import pytest

from segmentql.adapters.database import Database, WriteSession
from segmentql.memberships import actors as ends
from segmentql.rollouts import passes
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.passes import CHUNK_USERS, PendingSample, StepOutcome
from segmentql.users.service import delete_user
from tests.conftest import Api, Sql
from tests.operations import delete_segment
from tests.rollouts.helpers import (
    begin,
    begin_and_sample,
    by_hand,
    cancel,
    chunk,
    excluded,
    in_range,
    members,
    membership_ids,
    rollout_of,
    sample_of,
    set_plan,
    store,
    store_users,
    take,
    written,
)
from tests.timeline import lies_of_history, make_segment, recorded

BEYOND = 100
"""Users beyond the first chunk."""


async def first_chunk(sql: Sql, database: Database, percent: int = 100) -> tuple[int, range]:
    """A segment whose pass has done one of its two chunks; its number, and the users."""
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS + BEYOND)
    await set_plan(database, "A", percent)
    await begin_and_sample(database, segment_id)
    assert await chunk(database, segment_id) is StepOutcome.MORE_WORK
    return segment_id, users


async def assert_exact(sql: Sql, segment_id: int, users: Iterable[int], percent: int) -> None:
    in_now = await members(sql, segment_id)
    assert in_now.keys() == sample_of(segment_id, users, percent)
    assert set(in_now.values()) <= {"ROLLOUT"}
    assert await lies_of_history(sql) == {}


async def test_a_pass_goes_through_its_users_in_chunks_and_tells_how_far_it_is(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    assert set(await members(sql, segment_id)) == set(users[:CHUNK_USERS])
    half = await rollout_of(database, segment_id)
    assert (half.status, half.users_total, half.users_seen, half.progress) == (
        "RUNNING",
        CHUNK_USERS + BEYOND,
        CHUNK_USERS,
        CHUNK_USERS / (CHUNK_USERS + BEYOND),
    )
    assert await chunk(database, segment_id) is StepOutcome.NO_WORK
    done = await rollout_of(database, segment_id)
    assert (done.status, done.users_seen, done.progress) == ("COMPLETED", CHUNK_USERS + BEYOND, 1)
    await assert_exact(sql, segment_id, users, 100)


async def test_a_pass_of_exactly_one_chunk_ends_too(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS)
    await set_plan(database, "A", 1)
    await begin_and_sample(database, segment_id)
    assert await chunk(database, segment_id) is StepOutcome.MORE_WORK
    assert await chunk(database, segment_id) is StepOutcome.NO_WORK
    assert (await rollout_of(database, segment_id)).status == "COMPLETED"
    await assert_exact(sql, segment_id, users, 1)


async def test_a_crash_in_any_step_leaves_it_as_if_it_had_not_begun(
    sql: Sql, database: Database
) -> None:
    class Crash(Exception):
        pass

    async def crash(segment_id: int) -> None:
        async def work(session: WriteSession) -> None:
            done = await passes.advance(session, segment_id)
            if isinstance(done, PendingSample):
                sample = passes.Sample(0, 0, 0, 0)
                await passes.store_sample(session, done, sample)
            raise Crash

        before = (
            await sql.fetch("SELECT * FROM rollouts"),
            await sql.fetch("SELECT * FROM rollout_stages"),
            await written(sql, segment_id),
        )
        with pytest.raises(Crash):
            await database.transaction(work)
        assert before == (
            await sql.fetch("SELECT * FROM rollouts"),
            await sql.fetch("SELECT * FROM rollout_stages"),
            await written(sql, segment_id),
        )

    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS + BEYOND)
    await set_plan(database, "A", 50)
    await crash(segment_id)
    sampling = await begin(database, segment_id)
    await crash(segment_id)
    await store(database, sampling, await take(database, sampling))
    await crash(segment_id)
    assert await chunk(database, segment_id) is StepOutcome.MORE_WORK
    await crash(segment_id)
    assert await chunk(database, segment_id) is StepOutcome.NO_WORK
    await assert_exact(sql, segment_id, users, 50)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users) // 2}


# --- Another plan --------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 10, 60])
async def test_a_plan_set_between_two_chunks_turns_to_its_own_goal(
    sql: Sql, database: Database, percent: int
) -> None:
    segment_id, users = await first_chunk(sql, database, 50)
    first = await membership_ids(sql, segment_id)
    sample = sample_of(segment_id, users, percent)
    await set_plan(database, "A", percent)
    turned = await rollout_of(database, segment_id)
    assert (turned.status, turned.percent, turned.progress) == ("RUNNING", percent, 0)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, percent)
    # Nobody left for a moment: who is of both samples has the first membership still.
    now_in = await membership_ids(sql, segment_id)
    stayed = first.keys() & sample
    assert {user_id: now_in[user_id] for user_id in stayed} == {
        user_id: first[user_id] for user_id in stayed
    }
    expected = {
        ("JOINED", "ROLLOUT"): len(first.keys() | sample),
        ("LEFT", "ROLLOUT"): len(first.keys() - sample),
    }
    assert await written(sql, segment_id) == {key: n for key, n in expected.items() if n}


async def test_after_a_lowering_that_was_interrupted_a_percent_in_between_is_exact(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    await advance_rollout(database, segment_id)
    await set_plan(database, "A", 10)
    await begin_and_sample(database, segment_id)
    await chunk(database, segment_id)
    assert set(await members(sql, segment_id)) == (
        sample_of(segment_id, users, 10) | set(users[CHUNK_USERS:])
    )
    await set_plan(database, "A", 50)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 50)


async def test_a_sample_taken_for_a_plan_that_is_no_more_is_thrown_away(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 100)
    await set_plan(database, "A", 80)
    sampling = await begin(database, segment_id)
    sample = await take(database, sampling)
    await set_plan(database, "A", 30)
    await store(database, sampling, sample)
    other = await begin(database, segment_id)
    assert other.pass_number > sampling.pass_number
    await store(database, sampling, sample)
    assert await begin(database, segment_id) == other  # still to be sampled
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 30)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): 30}


# --- The end of it -------------------------------------------------------------------------------


async def test_cancelling_between_two_chunks_keeps_who_is_in_and_puts_in_nobody_else(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    await cancel(database, "A")
    await advance_rollout(database, segment_id)
    assert set(await members(sql, segment_id)) == set(users[:CHUNK_USERS])
    rollout = await rollout_of(database, segment_id)
    assert (rollout.status, rollout.percent) == ("CANCELLED", 100)
    await set_plan(database, "A", 1)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 1)


async def test_withdrawing_takes_out_exactly_those_whom_the_rollout_brought_in(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    last = users[-1]
    await by_hand(database, 1, add=["A"])
    await by_hand(database, last, add=["A"])
    await by_hand(database, 2, remove=["A"])
    await cancel(database, "A", withdraw=True)
    under_way = await rollout_of(database, segment_id)
    assert (under_way.status, under_way.percent) == ("WITHDRAWING", 0)
    await advance_rollout(database, segment_id)
    done = await rollout_of(database, segment_id)
    assert (done.status, done.percent) == ("CANCELLED", 0)
    assert await members(sql, segment_id) == {1: "MANUAL", last: "MANUAL"}
    assert await excluded(sql, segment_id) == {2}
    assert await written(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): CHUNK_USERS,
        ("JOINED", "MANUAL"): 1,
        ("LEFT", "MANUAL"): 1,
        ("LEFT", "ROLLOUT"): CHUNK_USERS - 2,
    }
    assert await lies_of_history(sql) == {}


async def test_a_plan_set_while_another_is_withdrawn_turns_to_its_own_goal(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    await advance_rollout(database, segment_id)
    await cancel(database, "A", withdraw=True)
    await begin_and_sample(database, segment_id)
    assert await chunk(database, segment_id) is StepOutcome.MORE_WORK
    assert set(await members(sql, segment_id)) == set(users[CHUNK_USERS:])
    await set_plan(database, "A", 40)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 40)


async def test_deleting_the_segment_between_two_chunks_stops_its_rollout(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database)
    assert (await delete_segment(api, "A"))["errors"] == []
    joined = await written(sql, segment_id)
    assert await chunk(database, segment_id) is StepOutcome.NO_WORK
    await advance_rollout(database, segment_id)
    await store_users(sql, 10, first=users[-1] + 1)
    assert await written(sql, segment_id) == joined == {("JOINED", "ROLLOUT"): CHUNK_USERS}
    assert await members(sql, segment_id) == {}
    async with database.read() as session:
        assert await passes.find_due_rollouts(session) == []
    assert (await rollout_of(database, segment_id)).status == "CANCELLED"
    await ends.record_segment_leaves(database, segment_id)
    assert await written(sql, segment_id) == {
        **joined,
        ("LEFT", "SEGMENT_DELETED"): CHUNK_USERS,
    }
    assert await lies_of_history(sql) == {}


# --- Users who go --------------------------------------------------------------------------------


async def test_users_deleted_during_a_pass_are_passed_by_and_stored_again_are_later_users(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 200)
    await set_plan(database, "A", 50)
    await begin_and_sample(database, segment_id)
    for user_id in users[:40]:
        await database.transaction(partial(delete_user, user_id=user_id, actor=None))
    await store_users(sql, 20)
    again = {user_id for user_id in users[:20] if in_range(segment_id, user_id, 50)}
    assert set(await members(sql, segment_id)) == again
    await advance_rollout(database, segment_id)
    # Of the sample of 200 that the pass began with, and nobody in the place of those who went.
    expected = (sample_of(segment_id, users, 50) & set(users[40:])) | again
    assert set(await members(sql, segment_id)) == expected
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): len(expected)}
    rollout = await rollout_of(database, segment_id)
    assert (rollout.users_total, rollout.users_seen) == (200, 200)
    # Exact again for all at the next pass.
    await set_plan(database, "A", 50)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, [*users[:20], *users[40:]], 50)


async def test_who_left_with_the_user_and_joins_again_at_once_has_moments_that_increase(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 1)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    for _ in range(5):
        await database.transaction(lambda session: delete_user(session, 1, actor=None))
        await store_users(sql, 1)
    entries = await recorded(sql, 1)
    assert [entry.operation for entry in entries] == ["JOINED", "LEFT"] * 5 + ["JOINED"]
    assert sorted({entry.at for entry in entries}) == [entry.at for entry in entries]
    assert await lies_of_history(sql) == {}


async def test_several_workers_on_one_rollout_do_each_chunk_once(
    sql: Sql, database: Database
) -> None:
    segment_id, users = await first_chunk(sql, database, 40)
    await asyncio.gather(*(advance_rollout(database, segment_id) for _ in range(5)))
    # Who found another at it left; the message that goes on is that one's to send.
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 40)
    assert await written(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users) * 40 // 100}
