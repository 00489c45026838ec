"""`rollout_events` has each plan, pause, resumption, cancellation and failure of a rollout."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.rollouts.actors import advance_rollout
from tests.back_dating import advance_time, all_rows
from tests.conftest import Api, Sql
from tests.keys.clients import KeyClient, make_client
from tests.operations import create_segment, delete_segment, delete_user, update_user_segments
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    pause_rollout,
    resume_rollout,
    set_rollout,
)
from tests.rollouts.helpers import joins_on_insert, store_users
from tests.rollouts.rollout_states import FAILURE, fail_rollout
from tests.timeline import HOUR, database_now

STAGES = [{"percent": 10}, {"percent": 50, "afterSeconds": 7200}]


@pytest.fixture
async def ada(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "ada")


@pytest.fixture
async def bob(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "bob")


async def events(sql: Sql) -> list[Any]:
    """Return event, actor, API key id and state of each event, in order."""
    rows = await sql.fetch(
        "SELECT event::text, actor, api_key_id, state::text FROM rollout_events ORDER BY id"
    )
    return [tuple(row) for row in rows]


async def last_plan(sql: Sql) -> tuple[Any, ...]:
    """Return the columns of the last event that describe the rollout after it."""
    row = await sql.fetchrow(
        """
        SELECT state, enroll_new_users, expires_at, paused_at, failure, percents, start_times
        FROM rollout_events ORDER BY id DESC LIMIT 1
        """
    )
    return tuple(row or ())


async def current_plan(sql: Sql) -> tuple[Any, ...]:
    """Return the same columns of the rollout and its stages."""
    row = await sql.fetchrow(
        """
        SELECT state, enroll_new_users, expires_at, paused_at, failure,
            ARRAY(SELECT percent FROM rollout_stages ORDER BY number),
            ARRAY(SELECT starts_at FROM rollout_stages ORDER BY number)
        FROM rollouts
        """
    )
    return tuple(row or ())


async def test_each_decision_is_recorded_with_its_key_and_the_plan_after_it(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    a, b = ("ada", ada.key.public_id), ("bob", bob.key.public_id)
    before = await database_now(sql)
    await create_segment(ada, slug="A", rollout={"stages": STAGES})
    expected: list[Any] = [("SET", *a, "ACTIVE")]
    assert await events(sql) == expected
    assert await last_plan(sql) == await current_plan(sql)
    accepted_rollout(
        await set_rollout(bob, {"percent": 20, "enrollNewUsers": False, "expiresAt": None})
    )
    expected.append(("SET", *b, "ACTIVE"))
    assert await events(sql) == expected
    assert await last_plan(sql) == await current_plan(sql)
    _, enroll_new_users, *_, percents, _ = await last_plan(sql)
    assert (enroll_new_users, percents) == (False, [Decimal(20)])
    accepted_rollout(await set_rollout(ada, {"stages": STAGES}))
    accepted_rollout(await pause_rollout(bob))
    expected += [("SET", *a, "ACTIVE"), ("PAUSED", *b, "PAUSED")]
    assert await events(sql) == expected
    assert await last_plan(sql) == await current_plan(sql)
    accepted_rollout(await resume_rollout(ada))
    accepted_rollout(await cancel_rollout(bob))
    expected += [("RESUMED", *a, "ACTIVE"), ("CANCELLED", *b, "CANCELLED")]
    assert await events(sql) == expected
    assert await last_plan(sql) == await current_plan(sql)
    accepted_rollout(await set_rollout(ada, {"percent": 30}))
    accepted_rollout(await cancel_rollout(bob, withdraw=True))
    expected += [("SET", *a, "ACTIVE"), ("CANCELLED", *b, "WITHDRAWING")]
    assert await events(sql) == expected
    assert await last_plan(sql) == await current_plan(sql)
    ats = [row["at"] for row in await sql.fetch("SELECT at FROM rollout_events ORDER BY id")]
    moments = [before, *ats, await database_now(sql)]
    assert moments == sorted(set(moments))


async def test_first_plan_stays_readable_after_it_is_replaced(sql: Sql, ada: KeyClient) -> None:
    await create_segment(ada, slug="A", rollout={"stages": STAGES})
    first = await current_plan(sql)
    await set_rollout(ada, {"percent": 99.5})
    row = await sql.fetchrow(
        """
        SELECT state, enroll_new_users, expires_at, paused_at, failure, percents, start_times
        FROM rollout_events ORDER BY id LIMIT 1
        """
    )
    assert tuple(row or ()) == first
    assert first[5] == [Decimal(10), Decimal(50)]


async def test_resumption_records_the_delayed_start_times(sql: Sql, ada: KeyClient) -> None:
    await create_segment(ada, slug="A", rollout={"stages": STAGES})
    await pause_rollout(ada)
    await advance_time(sql, 5 * HOUR)
    *_, (first, second) = await last_plan(sql)
    await resume_rollout(ada)
    assert await last_plan(sql) == await current_plan(sql)
    state, *_, (first_after, second_after) = await last_plan(sql)
    assert (state, first_after) == ("ACTIVE", first)
    assert second_after - second > 5 * HOUR
    assert second_after - second < 5 * HOUR + timedelta(minutes=5)


async def test_failure_is_recorded_once_without_an_actor(
    sql: Sql, database: Database, ada: KeyClient
) -> None:
    await create_segment(ada, slug="A", rollout={"stages": STAGES})
    await fail_rollout(database)
    await fail_rollout(database)  # attempts that were still running
    a = ("ada", ada.key.public_id)
    assert await events(sql) == [("SET", *a, "ACTIVE"), ("FAILED", None, None, "FAILED")]
    assert await last_plan(sql) == await current_plan(sql)
    assert (await last_plan(sql))[4] == FAILURE
    accepted_rollout(await resume_rollout(ada))
    assert (await events(sql))[2:] == [("RESUMED", *a, "ACTIVE")]
    assert await last_plan(sql) == await current_plan(sql)
    assert (await last_plan(sql))[4] is None


async def test_failure_and_resumption_of_a_withdrawal_are_recorded(
    sql: Sql, database: Database, ada: KeyClient
) -> None:
    await create_segment(ada, slug="A", rollout={"percent": 50})
    accepted_rollout(await cancel_rollout(ada, withdraw=True))
    await fail_rollout(database)
    accepted_rollout(await resume_rollout(ada))
    assert [(event, state) for event, _, _, state in await events(sql)] == [
        ("SET", "ACTIVE"),
        ("CANCELLED", "WITHDRAWING"),
        ("FAILED", "FAILED"),
        ("RESUMED", "WITHDRAWING"),
    ]
    assert await last_plan(sql) == await current_plan(sql)


async def test_work_on_a_plan_records_no_event(
    sql: Sql, database: Database, ada: KeyClient
) -> None:
    await store_users(sql, 20)
    await create_segment(ada, slug="A", rollout={"stages": STAGES})
    await advance_rollout(database, 1)
    await advance_time(sql, 3 * HOUR)
    await advance_rollout(database, 1)
    assert await sql.fetchval("SELECT finished_at IS NOT NULL FROM rollouts")
    await delete_segment(ada, "A")
    assert [event for event, *_ in await events(sql)] == ["SET"]


@pytest.mark.parametrize("status", ["ACTIVE", "CANCELLED"])
async def test_rejected_decision_records_no_event(sql: Sql, ada: KeyClient, status: str) -> None:
    await create_segment(ada, slug="A", rollout={"percent": 10})
    await create_segment(ada, slug="B")
    if status == "CANCELLED":
        await cancel_rollout(ada)
    before = {**await all_rows(sql), "api_keys": []}
    rejected = [
        await set_rollout(ada, {"percent": 20}, expectedVersion=9),
        await set_rollout(ada, {"stages": [{"percent": 1}, {"percent": 2, "afterSeconds": 0}]}),
        await set_rollout(ada, {"percent": 20}, slug="NOPE"),
        await resume_rollout(ada),
        await pause_rollout(ada, slug="B"),
        await create_segment(ada, slug="A", rollout={"percent": 10}),
    ]
    if status == "CANCELLED":
        rejected += [await pause_rollout(ada), await cancel_rollout(ada)]
    assert all(payload["errors"] for payload in rejected)
    assert {**await all_rows(sql), "api_keys": []} == before


async def test_members_of_a_rollout_record_the_key_that_set_the_plan(
    sql: Sql, database: Database, ada: KeyClient, bob: KeyClient
) -> None:
    """By a pass, by enrollment when another key stores the user, by lowering and withdrawing."""
    await store_users(sql, 40)
    await create_segment(ada, slug="A", rollout={"percent": 50})
    await advance_rollout(database, 1)
    a, b = ("ada", ada.key.public_id), ("bob", bob.key.public_id)
    authors = """
        SELECT operation::text, cause::text, actor, api_key_id, count(*) FROM history
        WHERE position > $1 GROUP BY 1, 2, 3, 4 ORDER BY 1
    """

    seen = 0

    async def new_entries() -> list[Any]:
        """Return the authors of the entries since the last call, with their number."""
        nonlocal seen
        rows = await sql.fetch(authors, seen)
        seen = await sql.fetchval("SELECT max(position) FROM history")
        return [tuple(row) for row in rows]

    assert await new_entries() == [("JOINED", "ROLLOUT", *a, 20)]
    enrolled = next(number for number in range(100, 200) if joins_on_insert(1, number, 50))
    await update_user_segments(bob, enrolled)
    assert await new_entries() == [("JOINED", "ROLLOUT", *a, 1)]
    assert (
        await sql.fetchval(
            "SELECT (actor, api_key_id) FROM memberships WHERE user_id = $1", enrolled
        )
        == a
    )
    assert (
        await sql.fetchval(
            "SELECT (created_by, created_by_api_key_id) FROM users WHERE id = $1", enrolled
        )
        == b
    )
    await delete_user(bob, enrolled)
    assert await new_entries() == [("LEFT", "USER_DELETED", *b, 1)]
    await set_rollout(bob, {"percent": 25})
    await advance_rollout(database, 1)
    assert await new_entries() == [("LEFT", "ROLLOUT", *b, 10)]
    assert await sql.fetchval("SELECT count(*) FROM memberships WHERE actor = 'ada'") == 10
    await cancel_rollout(ada, withdraw=True)
    await advance_rollout(database, 1)
    assert await new_entries() == [("LEFT", "ROLLOUT", *b, 10)]
