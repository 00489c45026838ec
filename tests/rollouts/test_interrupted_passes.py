"""A pass stays correct despite another plan, crashes or deleted users."""

import asyncio
from decimal import Decimal
from functools import partial

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import passes, sampling
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.passes import StepOutcome
from segmentql.users.service import delete_user
from tests.conftest import Sql
from tests.rollouts.helpers import (
    begin_pass,
    begin_pass_with_sample,
    expected_sample,
    history_counts,
    joins_on_insert,
    members,
    membership_ids,
    read_rollout,
    set_plan,
    store_sample,
    store_users,
    take_sample,
    work_chunk,
)
from tests.rollouts.interrupted_passes import BEYOND, assert_exact, first_chunk
from tests.timeline import history_entries, history_inconsistencies, make_segment


async def test_pass_works_in_chunks_and_reports_progress(sql: Sql, database: Database) -> None:
    segment_id, users = await first_chunk(sql, database)
    assert set(await members(sql, segment_id)) == set(users[:CHUNK_USERS])
    half = await read_rollout(database, segment_id)
    assert (half.status, half.users_total, half.users_seen, half.progress) == (
        "RUNNING",
        CHUNK_USERS + BEYOND,
        CHUNK_USERS,
        CHUNK_USERS / (CHUNK_USERS + BEYOND),
    )
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    done = await read_rollout(database, segment_id)
    assert (done.status, done.users_seen, done.progress) == ("COMPLETED", CHUNK_USERS + BEYOND, 1)
    await assert_exact(sql, segment_id, users, 100)


async def test_pass_of_exactly_one_chunk_ends(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS)
    await set_plan(database, "A", 1)
    await begin_pass_with_sample(database, segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.MORE_WORK
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    assert (await read_rollout(database, segment_id)).status == "COMPLETED"
    await assert_exact(sql, segment_id, users, 1)


async def test_crash_in_any_step_leaves_no_effect(sql: Sql, database: Database) -> None:
    class Crash(Exception):
        pass

    async def crash(segment_id: int) -> None:
        async def work(session: WriteSession) -> None:
            done = await passes.advance(session, segment_id)
            if isinstance(done, sampling.PendingSample):
                sample = sampling.Sample(0, 0, 0, 0)
                await sampling.store_sample(session, done, sample)
            raise Crash

        before = (
            await sql.fetch("SELECT * FROM rollouts"),
            await sql.fetch("SELECT * FROM rollout_stages"),
            await history_counts(sql, segment_id),
        )
        with pytest.raises(Crash):
            await database.transaction(work)
        assert before == (
            await sql.fetch("SELECT * FROM rollouts"),
            await sql.fetch("SELECT * FROM rollout_stages"),
            await history_counts(sql, segment_id),
        )

    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, CHUNK_USERS + BEYOND)
    await set_plan(database, "A", 50)
    await crash(segment_id)
    pending = await begin_pass(database, segment_id)
    await crash(segment_id)
    await store_sample(database, pending, await take_sample(database, pending))
    await crash(segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.MORE_WORK
    await crash(segment_id)
    assert await work_chunk(database, segment_id) is StepOutcome.NO_WORK
    await assert_exact(sql, segment_id, users, 50)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users) // 2}


# --- Another plan --------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0, 10, 60])
async def test_plan_set_between_two_chunks_reaches_its_own_percent(
    sql: Sql, database: Database, percent: int
) -> None:
    segment_id, users = await first_chunk(sql, database, 50)
    first = await membership_ids(sql, segment_id)
    sample = expected_sample(segment_id, users, percent)
    await set_plan(database, "A", percent)
    turned = await read_rollout(database, segment_id)
    assert (str(turned.status), turned.percent, turned.progress) == ("RUNNING", Decimal(percent), 0)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, percent)
    # Users of both samples still have their first membership.
    now_in = await membership_ids(sql, segment_id)
    still_members = first.keys() & sample
    assert {user_id: now_in[user_id] for user_id in still_members} == {
        user_id: first[user_id] for user_id in still_members
    }
    expected = {
        ("JOINED", "ROLLOUT"): len(first.keys() | sample),
        ("LEFT", "ROLLOUT"): len(first.keys() - sample),
    }
    assert await history_counts(sql, segment_id) == {key: n for key, n in expected.items() if n}


async def test_percent_after_an_interrupted_lowering_is_exact(sql: Sql, database: Database) -> None:
    segment_id, users = await first_chunk(sql, database)
    await advance_rollout(database, segment_id)
    await set_plan(database, "A", 10)
    await begin_pass_with_sample(database, segment_id)
    await work_chunk(database, segment_id)
    assert set(await members(sql, segment_id)) == (
        expected_sample(segment_id, users, 10) | set(users[CHUNK_USERS:])
    )
    await set_plan(database, "A", 50)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 50)


async def test_sample_of_a_replaced_plan_is_discarded(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 100)
    await set_plan(database, "A", 80)
    pending = await begin_pass(database, segment_id)
    sample = await take_sample(database, pending)
    await set_plan(database, "A", 30)
    await store_sample(database, pending, sample)
    other = await begin_pass(database, segment_id)
    assert other.pass_number > pending.pass_number
    await store_sample(database, pending, sample)
    assert await begin_pass(database, segment_id) == other  # still without a sample
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 30)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 30}


# --- Deleted users -------------------------------------------------------------------------------


async def test_deleted_users_are_skipped_and_recreated_ones_are_new_users(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 200)
    await set_plan(database, "A", 50)
    await begin_pass_with_sample(database, segment_id)
    for user_id in users[:40]:
        await database.transaction(partial(delete_user, user_id=user_id, actor=NO_ACTOR))
    await store_users(sql, 20)
    rejoining = {user_id for user_id in users[:20] if joins_on_insert(segment_id, user_id, 50)}
    assert set(await members(sql, segment_id)) == rejoining
    await advance_rollout(database, segment_id)
    # The sample of the 200 users of the pass, without replacements for deleted users.
    expected = (expected_sample(segment_id, users, 50) & set(users[40:])) | rejoining
    assert set(await members(sql, segment_id)) == expected
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): len(expected)}
    rollout = await read_rollout(database, segment_id)
    assert (rollout.users_total, rollout.users_seen) == (200, 200)
    # The next pass is exact for all users.
    await set_plan(database, "A", 50)
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, [*users[:20], *users[40:]], 50)


async def test_rejoining_a_recreated_user_has_increasing_timestamps(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 1)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    for _ in range(5):
        await database.transaction(lambda session: delete_user(session, 1, actor=NO_ACTOR))
        await store_users(sql, 1)
    entries = await history_entries(sql, 1)
    assert [entry.operation for entry in entries] == ["JOINED", "LEFT"] * 5 + ["JOINED"]
    assert sorted({entry.at for entry in entries}) == [entry.at for entry in entries]
    assert await history_inconsistencies(sql) == {}


async def test_concurrent_workers_do_each_chunk_once(sql: Sql, database: Database) -> None:
    segment_id, users = await first_chunk(sql, database, 40)
    await asyncio.gather(*(advance_rollout(database, segment_id) for _ in range(5)))
    # Workers that found the rollout locked did nothing, so that work may be left.
    await advance_rollout(database, segment_id)
    await assert_exact(sql, segment_id, users, 40)
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): len(users) * 40 // 100}
