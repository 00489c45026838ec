"""The stages of a rollout depend only on its schedule and the clock, not on running workers."""

from datetime import datetime
from functools import partial

import httpx
import pytest

from tests.conftest import Api, RunWorker, Sql, until
from tests.e2e.conftest import Serving
from tests.operations import parse_timestamp
from tests.rollouts.helpers import expected_sample, history_counts, joins_on_insert, store_users
from tests.rollouts.worker_helpers import (
    assert_members_are,
    create_segment_with_rollout,
    read_rollout,
    stage_statuses,
)
from tests.timeline import SECOND

pytestmark = pytest.mark.e2e

STAGED_USERS = 30_000
LATER = range(STAGED_USERS + 1, STAGED_USERS + 501)
"""Users that are stored while no worker runs."""

PLANS = {
    "A": [(10, 0), (20, 10), (50, 10)],
    "B": [(10, 0), (20, 15), (50, 15)],
    "C": [(50, 0), (10, 10), (25, 10)],
}
"""The stages by slug: a percent, and the seconds after the stage before."""


async def at_second(sql: Sql, start: datetime, second: int) -> bool:
    return bool(await sql.fetchval("SELECT clock_timestamp() >= $1", start + second * SECOND))


async def rollout_states(api: Api) -> dict[str, tuple[str, float, list[str]]]:
    """Return each rollout's status, current percent and stage statuses."""
    rollouts = {slug: await read_rollout(api, slug) for slug in PLANS}
    return {
        slug: (rollout["status"], rollout["percent"], stage_statuses(rollout))
        for slug, rollout in rollouts.items()
    }


async def test_worker_catches_up_with_missed_stages(
    serve: Serving, sql: Sql, run_worker: RunWorker
) -> None:
    users = await store_users(sql, STAGED_USERS)
    async with httpx.AsyncClient(base_url=serve.address, timeout=60) as http:
        api = Api(http)
        async with run_worker() as worker:
            for slug, stages in PLANS.items():
                await create_segment_with_rollout(
                    api,
                    slug,
                    stages=[
                        {"percent": percent, "afterSeconds": after} for percent, after in stages
                    ],
                )
            start = max(
                [
                    parse_timestamp((await read_rollout(api, slug))["stages"][0]["startsAt"])
                    for slug in PLANS
                ]
            )
            second = partial(at_second, sql, start)
            await until(partial(second, 5))
            assert await rollout_states(api) == {
                "A": ("WAITING", 10, ["DONE", "PENDING", "PENDING"]),
                "B": ("WAITING", 10, ["DONE", "PENDING", "PENDING"]),
                "C": ("WAITING", 50, ["DONE", "PENDING", "PENDING"]),
            }
            worker.kill()
            await worker.wait()

        await until(partial(second, 12))
        assert await rollout_states(api) == {
            "A": ("RUNNING", 20, ["DONE", "ACTIVE", "PENDING"]),
            "B": ("WAITING", 10, ["DONE", "PENDING", "PENDING"]),
            "C": ("RUNNING", 10, ["DONE", "ACTIVE", "PENDING"]),
        }
        await store_users(sql, len(LATER), first=LATER.start)
        await until(partial(second, 22))
        assert await rollout_states(api) == {
            "A": ("RUNNING", 50, ["DONE", "SKIPPED", "ACTIVE"]),
            "B": ("RUNNING", 20, ["DONE", "ACTIVE", "PENDING"]),
            "C": ("RUNNING", 25, ["DONE", "SKIPPED", "ACTIVE"]),
        }
        await until(partial(second, 25))
        async with run_worker():
            await until(partial(second, 35))
            assert await rollout_states(api) == {
                "A": ("COMPLETED", 50, ["DONE", "SKIPPED", "DONE"]),
                "B": ("COMPLETED", 50, ["DONE", "DONE", "DONE"]),
                "C": ("COMPLETED", 25, ["DONE", "SKIPPED", "DONE"]),
            }
        await assert_history_is_correct(api, sql, users, start)


async def assert_history_is_correct(api: Api, sql: Sql, users: range, start: datetime) -> None:
    """Assert that the final members and every past moment agree with history."""
    all_users = range(1, LATER.stop)
    a, b, c = 1, 2, 3
    at_last = {a: expected_sample(a, all_users, 50), b: expected_sample(b, all_users, 50)}
    at_last[c] = expected_sample(c, all_users, 25)
    at_first = {
        a: expected_sample(a, users, 10),
        b: expected_sample(b, users, 10),
        c: expected_sample(c, users, 50),
    }
    percents = {a: 20, b: 10, c: 10}
    met = {
        segment_id: {user_id for user_id in LATER if joins_on_insert(segment_id, user_id, percent)}
        for segment_id, percent in percents.items()
    }
    for segment_id in (a, b, c):
        await assert_members_are(sql, segment_id, at_last[segment_id])
        ever = at_first[segment_id] | met[segment_id] | at_last[segment_id]
        left_members = ever - at_last[segment_id]
        rows = {("JOINED", "ROLLOUT"): len(ever), ("LEFT", "ROLLOUT"): len(left_members)}
        assert await history_counts(sql, segment_id) == {
            key: rows[key] for key in rows if rows[key]
        }
        # While no worker ran, only later users joined, and none left.
        assert await members_at(sql, segment_id, start + 24 * SECOND) == (
            at_first[segment_id] | met[segment_id]
        )
    second_stage = expected_sample(b, all_users, 20)
    third = parse_timestamp((await read_rollout(api, "B"))["stages"][2]["startsAt"])
    assert await members_at(sql, b, third) == second_stage | met[b]
    member = min(second_stage - at_first[b])
    past_query = (
        "query($id: ID!, $at: DateTime!) { user(id: $id) { segments(asOf: $at) { slug } } }"
    )
    for at, is_in in ((start + 24 * SECOND, False), (third, True)):
        user = (await api(past_query, id=str(member), at=at.isoformat()))["user"]
        assert ({"slug": "B"} in user["segments"]) is is_in


async def members_at(sql: Sql, segment_id: int, at: datetime) -> set[int]:
    """Return the members at a moment, by replaying history."""
    rows = await sql.fetch(
        """
        SELECT user_id FROM history WHERE segment_id = $1 AND at <= $2
        GROUP BY user_id
        HAVING count(*) FILTER (WHERE operation = 'JOINED')
            > count(*) FILTER (WHERE operation = 'LEFT')
        """,
        segment_id,
        at,
    )
    return {row["user_id"] for row in rows}
