"""A pass adds exactly the sample, keeps manual changes, and writes history."""

from datetime import timedelta

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships.records import OnExisting
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.reads import rollout_counts
from segmentql.users.service import delete_user
from tests.back_dating import advance_time
from tests.conftest import Sql
from tests.rollouts.helpers import (
    cancel,
    excluded,
    expected_sample,
    history_counts,
    members,
    membership_ids,
    read_rollout,
    set_plan,
    store_users,
    update_manually,
)
from tests.timeline import HOUR, SECOND, history_entries, history_inconsistencies, make_segment

MINUTE = timedelta(minutes=1)


def by_rollout(user_ids: set[int]) -> dict[int, str]:
    return dict.fromkeys(user_ids, "ROLLOUT")


# --- Exactly the sample --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "percent", "size"),
    [
        (0, "50", 0),
        (1, "50", 1),
        (1, "49.999", 0),
        (3, "50", 2),
        (5, "10", 1),  # half a user rounds up
        (200, "50", 100),
        (200, "0", 0),
        (200, "0.001", 0),
        (200, "99.749", 199),
        (200, "100", 200),
        (100_000, "33.333", 33_333),
    ],
)
async def test_pass_adds_exactly_the_sample_with_one_history_row_each(
    sql: Sql, database: Database, users: int, percent: str, size: int
) -> None:
    segment_id = await make_segment(sql, "A")
    stored = await store_users(sql, users)
    await set_plan(database, "A", percent)
    await advance_rollout(database, segment_id)
    sample = expected_sample(segment_id, stored, percent)
    assert len(sample) == size
    assert await members(sql, segment_id) == by_rollout(sample)
    assert await history_counts(sql, segment_id) == ({("JOINED", "ROLLOUT"): size} if size else {})
    assert await history_inconsistencies(sql) == {}
    rollout = await read_rollout(database, segment_id)
    # At 0 % the pass goes only through the members to remove.
    seen = users if percent != "0" else 0
    assert (rollout.status, rollout.percent, rollout.users_total, rollout.users_seen) == (
        "COMPLETED",
        type(rollout.percent)(percent),
        seen,
        seen,
    )
    assert rollout.progress == 1
    async with database.read() as session:
        counts = (await rollout_counts(session, [segment_id]))[segment_id]
    assert (counts.enrolled, counts.excluded) == (size, 0)


async def test_sparse_ids_up_to_the_maximum_are_sampled(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    user_ids = [2**63 - 1, 2**63 - 2, 2**53 + 1, 2**40, 10**18, 1, 7, 2**31, 2**32, 999]
    await sql.execute(
        "INSERT INTO users (id, created_at) SELECT unnest($1::bigint[]), now()", user_ids
    )
    await set_plan(database, "A", 50)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == by_rollout(expected_sample(segment_id, user_ids, 50))


async def test_raising_keeps_all_members_and_lowering_adds_none(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 400)
    seen: list[dict[int, int]] = []
    for percent in (10, 25, 5, 0, 10):
        await set_plan(database, "A", percent)
        await advance_rollout(database, segment_id)
        assert await members(sql, segment_id) == by_rollout(
            expected_sample(segment_id, users, percent)
        )
        seen.append(await membership_ids(sql, segment_id))
    assert [len(ids) for ids in seen] == [40, 100, 20, 0, 40]
    assert seen[0].items() <= seen[1].items()
    assert seen[2].items() <= seen[0].items()
    assert seen[4].keys() == seen[0].keys()
    assert not set(seen[4].values()) & set(seen[0].values())  # new memberships
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): 40 + 60 + 40,
        ("LEFT", "ROLLOUT"): 80 + 20,
    }
    assert await history_inconsistencies(sql) == {}


async def test_advancing_a_finished_pass_changes_nothing(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 50)
    await set_plan(database, "A", 30)
    await advance_rollout(database, segment_id)
    before = await read_rollout(database, segment_id), await history_entries(sql)
    await store_users(sql, 50, first=101)
    joined = len(await members(sql, segment_id))
    await advance_rollout(database, segment_id)
    assert len(await members(sql, segment_id)) == joined
    assert (await read_rollout(database, segment_id)).pass_number == before[0].pass_number
    assert (await history_entries(sql))[: len(before[1])] == before[1]


# --- Manual changes take precedence---------------------------------------------------------------


async def test_manual_members_stay_and_excluded_users_are_not_replaced(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 200)
    sample = expected_sample(segment_id, users, 50)
    inside, outside = sorted(sample), sorted(set(users) - sample)
    for user_id in (inside[0], inside[1], outside[0]):
        await update_manually(database, user_id, add=["A"])
    for user_id in (inside[2], inside[3], outside[1]):
        await update_manually(database, user_id, remove=["A"])
    membership_ids_before = await membership_ids(sql, segment_id)

    async def assert_in(of_the_sample: set[int]) -> None:
        assert await members(sql, segment_id) == {
            **by_rollout(of_the_sample - set(inside[:4])),
            **dict.fromkeys((inside[0], inside[1], outside[0]), "MANUAL"),
        }
        assert await excluded(sql, segment_id) == {inside[2], inside[3], outside[1]}
        assert membership_ids_before.items() <= (await membership_ids(sql, segment_id)).items()

    for percent in (50, 10, 0, 50):
        await set_plan(database, "A", percent)
        await advance_rollout(database, segment_id)
        await assert_in(expected_sample(segment_id, users, percent))
    assert len(await members(sql, segment_id)) == 100 - 2 + 1
    async with database.read() as session:
        counts = (await rollout_counts(session, [segment_id]))[segment_id]
    assert (counts.enrolled, counts.excluded) == (96, 3)
    await cancel(database, "A", withdraw=True)
    await advance_rollout(database, segment_id)
    await assert_in(set())
    assert await history_inconsistencies(sql) == {}


@pytest.mark.parametrize(
    ("on_existing", "cause"),
    [
        (OnExisting.EXTEND, "MANUAL"),
        (OnExisting.REPLACE, "MANUAL"),
        (OnExisting.KEEP, "ROLLOUT"),
    ],
)
async def test_manual_add_takes_over_a_rollout_member_unless_keep(
    sql: Sql, database: Database, on_existing: OnExisting, cause: str
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    before = await sql.fetchrow("SELECT id, joined_at FROM memberships WHERE user_id = 2")
    changed = await update_manually(database, 2, add=["A"], on_existing=on_existing)
    assert (changed.added, changed.removed, changed.extended) == (0, 0, 0)
    assert await sql.fetchrow("SELECT id, joined_at FROM memberships WHERE user_id = 2") == before
    assert await members(sql, segment_id) == {1: "ROLLOUT", 2: cause, 3: "ROLLOUT"}
    assert await history_counts(sql, segment_id) == {("JOINED", "ROLLOUT"): 3}
    await set_plan(database, "A", 0)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == ({2: "MANUAL"} if cause == "MANUAL" else {})
    assert await history_inconsistencies(sql) == {}


async def test_removed_user_stays_excluded_until_added_manually(
    sql: Sql, database: Database
) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 2)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    removed = await update_manually(database, 2, remove=["A"])
    assert removed.removed == 1
    for percent in (100, 50, 100):
        await set_plan(database, "A", percent)
        await advance_rollout(database, segment_id)
        assert 2 not in await members(sql, segment_id)
    await cancel(database, "A")
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "ROLLOUT"}

    await update_manually(database, 2, add=["A"], ttl=MINUTE)
    assert await excluded(sql, segment_id) == set()
    await advance_time(sql, HOUR)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "ROLLOUT", 2: "ROLLOUT"}
    assert [(e.operation, e.cause) for e in await history_entries(sql, 2)] == [
        ("JOINED", "ROLLOUT"),
        ("LEFT", "MANUAL"),
        ("JOINED", "MANUAL"),
        ("LEFT", "TTL"),
        ("JOINED", "ROLLOUT"),
    ]
    assert await history_inconsistencies(sql) == {}


async def test_expired_member_of_the_sample_rejoins(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 2)
    await update_manually(database, 1, add=["A"], ttl=MINUTE)
    await advance_time(sql, HOUR)
    expired = await sql.fetchrow("SELECT * FROM memberships")
    assert expired is not None
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {1: "ROLLOUT", 2: "ROLLOUT"}
    joined, left, rejoin = await history_entries(sql, 1)
    assert (joined.operation, joined.cause, joined.membership_id) == (
        "JOINED",
        "MANUAL",
        expired["id"],
    )
    assert (left.at, left.operation, left.cause) == (expired["expires_at"], "LEFT", "TTL")
    assert (rejoin.operation, rejoin.cause) == ("JOINED", "ROLLOUT")
    assert rejoin.membership_id > expired["id"]
    assert await excluded(sql, segment_id) == set()
    assert await history_inconsistencies(sql) == {}


async def test_lowering_the_percent_does_not_exclude(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    users = await store_users(sql, 40)
    for percent in (80, 20, 80):
        await set_plan(database, "A", percent)
        await advance_rollout(database, segment_id)
        assert await excluded(sql, segment_id) == set()
    assert await members(sql, segment_id) == by_rollout(expected_sample(segment_id, users, 80))


async def test_recreated_user_is_not_excluded(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 3)
    await update_manually(database, 2, remove=["A"])
    await database.transaction(lambda session: delete_user(session, 2, actor=NO_ACTOR))
    await store_users(sql, 1, first=2)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == by_rollout({1, 2, 3})


async def test_just_expired_member_is_not_removed(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await store_users(sql, 4)
    await set_plan(database, "A", 100)
    await advance_rollout(database, segment_id)
    await update_manually(database, 1, add=["A"], ttl=MINUTE, on_existing=OnExisting.REPLACE)
    await advance_time(sql, MINUTE + SECOND)
    await set_plan(database, "A", 0)
    await advance_rollout(database, segment_id)
    assert await members(sql, segment_id) == {}
    assert await history_counts(sql, segment_id) == {
        ("JOINED", "ROLLOUT"): 4,
        ("LEFT", "ROLLOUT"): 3,
    }
    assert await history_inconsistencies(sql) == {}
