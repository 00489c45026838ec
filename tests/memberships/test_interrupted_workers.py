"""A worker that is killed or stopped loses and repeats no leave."""

import signal
import time
from functools import partial

import pytest
from redis import Redis

from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from segmentql.worker import STOP_SECONDS
from tests.conftest import RunWorker, Sql, serving, until
from tests.memberships.worker_helpers import BY_SCHEDULER, has_lease_holder, is_recorded, lateness
from tests.timeline import (
    SECOND,
    add_members,
    add_membership,
    history_inconsistencies,
    make_segment,
)


async def partly_recorded(sql: Sql, members: int) -> bool:
    leave: int = await sql.fetchval("SELECT count(*) FROM memberships")
    return 0 < leave < members


async def all_are_recorded(sql: Sql) -> bool:
    leave: int = await sql.fetchval(
        "SELECT count(*) FROM segments WHERE deleted_at IS NOT NULL AND leaves_recorded_at IS NULL"
    )
    return leave == 0


DELETE = """
mutation Delete($slug: String!) {
  deleteSegment(input: {slug: $slug}) { deletedId errors { message } }
}
"""


@pytest.mark.e2e
async def test_killed_worker_loses_and_repeats_no_leave(
    settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    members = 100_000
    segment_id = await make_segment(sql, "A")
    await add_members(sql, segment_id, members)
    async with serving(settings) as api:
        async with run_worker() as worker:
            began = time.monotonic()
            assert (await api(DELETE, slug="A"))["deleteSegment"]["errors"] == []
            assert time.monotonic() - began < 1
            await until(partial(partly_recorded, sql, members))
            worker.kill()
            await worker.wait()
        assert await partly_recorded(sql, members)
        answer = await api('{ segment(slug: "A") { id } user(id: 100000) { segments { slug } } }')
        assert answer == {"segment": None, "user": {"segments": []}}
        async with run_worker():
            await until(partial(all_are_recorded, sql))
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 0
    leaves = await sql.fetchrow(
        """
        SELECT count(*), count(DISTINCT user_id), min(at), max(at),
            (SELECT deleted_at FROM segments)
        FROM history WHERE operation = 'LEFT' AND cause = 'SEGMENT_DELETED'
        """
    )
    assert leaves is not None
    assert tuple(leaves[:2]) == (members, members)
    assert leaves[2] == leaves[3] == leaves[4]
    assert await history_inconsistencies(sql) == {}


@pytest.mark.e2e
async def test_sigterm_finishes_the_job_and_requeues_the_rest(
    settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    first, second = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_members(sql, first, 100_000)
    await add_members(sql, second, 10)
    redis = Redis.from_url(settings.redis_url)
    async with (
        serving(settings) as api,
        run_worker(SEGMENTQL_SCHEDULER="off", SEGMENTQL_WORKER_THREADS="1") as worker,
    ):
        await api(DELETE, slug="A")
        await until(partial(partly_recorded, sql, 100_010))
        await api(DELETE, slug="B")
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert await worker.wait() == 0
        assert time.monotonic() - began < STOP_SECONDS
    rows = await sql.fetch("SELECT segment_id, count(*) FROM memberships GROUP BY 1")
    assert [tuple(row) for row in rows] == [(second, 10)]
    assert redis.llen(f"dramatiq:{RECORD_SEGMENT_LEAVES.queue}") == 1
    async with run_worker(SEGMENTQL_SCHEDULER="off"):
        await until(partial(all_are_recorded, sql))
    assert await history_inconsistencies(sql) == {}
    redis.close()


@pytest.mark.e2e
async def test_other_worker_takes_over_the_lease_of_a_killed_one(
    sql: Sql, run_worker: RunWorker
) -> None:
    async def holder() -> str:
        return str(await sql.fetchval("SELECT holder FROM leases WHERE expires_at > now()"))

    async def another_holds() -> bool:
        return await holder() not in {first, "None"}

    segment_id = await make_segment(sql, "A")
    async with run_worker() as worker:
        await until(partial(has_lease_holder, sql))
        first = await holder()
        async with run_worker():
            assert await holder() == first
            worker.kill()
            await worker.wait()
            await add_membership(sql, 7, segment_id, ends_in=-SECOND / 1000)
            await until(another_holds)
            await until(partial(is_recorded, sql))
    # The lease must expire first here; see LEASE_SECONDS.
    assert await lateness(sql) < BY_SCHEDULER + 2 * SECOND
