"""The metrics of joins and leaves equal the entries of history, by cause."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.actors import expire_due_memberships, record_segment_leaves
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.actors import advance_rollout
from segmentql.tables import Cause
from segmentql.users.service import delete_user
from tests.back_dating import HOUR, NOON, delete_segment_at, insert_membership
from tests.conftest import Api, Sql
from tests.operations import create_segment, create_user, make_segments
from tests.rollouts.helpers import store_users

Recorded = Counter[tuple[str, str]]


def counted() -> Recorded:
    names = {"JOINED": "segmentql_joins_total", "LEFT": "segmentql_leaves_total"}
    return Counter(
        {
            (operation, cause): int(REGISTRY.get_sample_value(name, {"cause": cause}) or 0)
            for operation, name in names.items()
            for cause in Cause
        }
    )


async def in_history(sql: Sql) -> Recorded:
    rows = await sql.fetch("SELECT operation, cause, count(*) FROM history GROUP BY 1, 2")
    return Counter({(operation, cause): number for operation, cause, number in rows})


async def test_counters_equal_history_by_operation_and_cause(
    api: Api, database: Database, sql: Sql
) -> None:
    await store_users(sql, 40)
    await make_segments(api, "hand", "gone", "ttl")
    await insert_membership(sql, 1, "ttl", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 2, "ttl", joined_at=NOON, expires_at=NOON + HOUR)
    for user_id in (3, 4, 5):
        await insert_membership(sql, user_id, "gone", joined_at=NOON)
    await insert_membership(sql, 6, "gone", joined_at=NOON, expires_at=NOON + HOUR)
    history, metrics = await in_history(sql), counted()

    async def change(user_id: int, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        await database.transaction(
            lambda session: update_user_segments(
                session, user_id=user_id, add=add, remove=remove, actor=NO_ACTOR
            )
        )

    await change(1, add=["ttl", "hand"])  # user 1 rejoins: a leave by TTL and two joins by hand
    await change(1, remove=["hand"])
    await change(1, add=["ttl"])  # extended: no entry
    await expire_due_memberships(database)  # user 2
    await delete_segment_at(sql, "gone", NOON + 2 * HOUR)
    # three leaves with the segment, one of them by its TTL
    await record_segment_leaves(database, 2)
    await create_segment(api, slug="all", rollout={"percent": 100})
    await advance_rollout(database, 4)
    await create_user(api, id="1000")  # a new user joins at once
    await change(1001)  # as above
    await change(7, remove=["all"])
    await database.transaction(lambda session: delete_user(session, 8, actor=NO_ACTOR))

    took = await in_history(sql) - history
    assert took == {
        ("JOINED", "MANUAL"): 2,
        ("JOINED", "ROLLOUT"): 42,
        ("LEFT", "TTL"): 3,
        ("LEFT", "SEGMENT_DELETED"): 3,
        ("LEFT", "MANUAL"): 2,
        ("LEFT", "USER_DELETED"): 1,
    }
    assert counted() - metrics == took


async def test_rolled_back_entries_are_not_counted(api: Api, database: Database, sql: Sql) -> None:
    await make_segments(api, "hand")
    before = counted()

    async def fail(session: WriteSession) -> None:
        await update_user_segments(session, user_id=1, add=["hand"], remove=[], actor=NO_ACTOR)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.transaction(fail)
    # This uses the same connection, because the pool returns the last one first.
    await database.transaction(
        lambda session: update_user_segments(
            session, user_id=2, add=["hand"], remove=[], ttl=timedelta(hours=1), actor=NO_ACTOR
        )
    )
    assert counted() - before == {("JOINED", "MANUAL"): 1}
    assert sum((await in_history(sql)).values()) == 1


async def test_entries_of_a_dry_run_are_not_counted(api: Api, database: Database, sql: Sql) -> None:
    await make_segments(api, "hand")
    before = counted()

    async def add(session: WriteSession) -> None:
        await update_user_segments(session, user_id=1, add=["hand"], remove=[], actor=NO_ACTOR)

    await database.transaction(add, dry_run=True)
    assert counted() == before
    await database.transaction(add)  # on the same connection
    assert counted() - before == {("JOINED", "MANUAL"): 1}
    assert sum((await in_history(sql)).values()) == 1
