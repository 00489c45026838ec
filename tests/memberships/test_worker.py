"""`segmentql worker` records due leaves in time, by message or by the scheduler."""

from datetime import timedelta
from functools import partial

import pytest
from redis import Redis

from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, serving, until
from tests.memberships.worker_helpers import (
    BY_MESSAGE,
    BY_SCHEDULER,
    add,
    has_lease_holder,
    is_recorded,
    lateness,
    only_expiry,
)
from tests.timeline import SECOND, add_membership, history_entries, make_segment


async def test_delayed_message_records_a_short_ttl_without_the_scheduler(
    settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segment(sql, "A")
    async with serving(settings) as api, run_worker(SEGMENTQL_SCHEDULER="off"):
        await add(api, 7, "A", ttl_seconds=3)
        end = await only_expiry(sql)
        await until(partial(is_recorded, sql))
    assert timedelta(0) < await lateness(sql) < BY_MESSAGE
    assert (await history_entries(sql))[-1].at == end


async def test_scheduler_records_an_end_whose_message_was_lost(
    settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segment(sql, "A")
    redis = Redis.from_url(settings.redis_url)

    async def message_waits() -> bool:
        return redis.llen("dramatiq:expiry.DQ") == 1

    async with serving(settings) as api:
        await add(api, 7, "A", ttl_seconds=3)
        end = await only_expiry(sql)
        await until(message_waits)
        redis.flushall()
        async with run_worker():
            await until(partial(is_recorded, sql))
    assert timedelta(0) < await lateness(sql) < BY_SCHEDULER
    assert (await history_entries(sql))[-1].at == end
    redis.close()


async def test_scheduler_records_an_end_between_two_checks(sql: Sql, run_worker: RunWorker) -> None:
    # It takes the TTL of a second and the rest of the scheduler's longest interval.
    segment_id = await make_segment(sql, "A")
    async with run_worker():
        await until(partial(has_lease_holder, sql))
        membership = await add_membership(sql, 7, segment_id, ends_in=SECOND)
        await until(partial(is_recorded, sql))
    assert timedelta(0) < await lateness(sql) < BY_SCHEDULER
    assert (await history_entries(sql))[-1].at == membership["expires_at"]


@pytest.mark.e2e
async def test_end_without_running_workers_is_recorded_at_its_moment(
    sql: Sql, run_worker: RunWorker
) -> None:
    membership = await add_membership(sql, 7, await make_segment(sql, "A"), ends_in=-3600 * SECOND)
    async with run_worker():
        await until(partial(is_recorded, sql))
    assert (await history_entries(sql))[-1].at == membership["expires_at"]
