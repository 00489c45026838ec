"""`segmentql rollout watch` prints the changes of a rollout until it ends."""

import signal

import pytest

from tests.cli.rollout_watch_process import RunWatch, create_rollout, set_progress
from tests.conftest import Api, RunWorker, Sql
from tests.operations import create_segment, delete_segment
from tests.rollouts.graphql_client import (
    accepted_rollout,
    cancel_rollout,
    pause_rollout,
    resume_rollout,
    set_rollout,
)
from tests.rollouts.helpers import store_users

pytestmark = pytest.mark.slow  # each test starts a process of the command

HALF_THEN_ALL = {"stages": [{"percent": 50}, {"percent": 100, "afterSeconds": 3600}]}


async def next_start_time(sql: Sql) -> str:
    start = await sql.fetchval("SELECT max(starts_at) FROM rollout_stages")
    return f"{start:%Y-%m-%d %H:%M:%S} UTC"


async def test_prints_each_stage_and_exits_with_0_when_completed(
    watch: RunWatch, api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, 200)
    await create_rollout(api, **HALF_THEN_ALL)
    start = await next_start_time(sql)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        async with run_worker():
            await watcher.wait_for_lines(2)
        await sql.execute("UPDATE rollout_stages SET starts_at = now() WHERE number = 2")
        await watcher.wait_for_lines(3)
        async with run_worker():
            assert await watcher.wait_for_exit() == 0
    assert watcher.lines == [
        f"RUNNING: 50 % of users, stage 1 of 2, 0 enrolled; 100 % at {start}, in D",
        f"WAITING: 50 % of users, stage 1 of 2, 100 enrolled; 100 % at {start}, in D",
        "RUNNING: 100 % of users, stage 2 of 2, 100 enrolled",
        "COMPLETED: 100 % of users, stage 2 of 2, 200 enrolled",
    ]
    assert watcher.errors == ""


async def test_prints_each_10_percent_of_progress_once(watch: RunWatch, api: Api, sql: Sql) -> None:
    await create_rollout(api, percent=33.333)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        for seen in (999, 1_000, 1_499, 4_711, 4_999):
            await set_progress(sql, seen, 10_000)
            await watcher.wait_for_poll(sql)
        accepted_rollout(await cancel_rollout(api))
        assert await watcher.wait_for_exit() == 0
    assert watcher.lines == [
        "RUNNING: 33.333 % of users, 0 enrolled",
        "10 %: 1,000 of 10,000 users processed",
        "40 %: 4,711 of 10,000 users processed",
        "CANCELLED: 33.333 % of users, 0 enrolled",
    ]


async def test_waits_while_scheduled_or_paused_and_prints_each_once(
    watch: RunWatch, api: Api, sql: Sql
) -> None:
    await create_rollout(api, stages=[{"percent": 10, "afterSeconds": 3600}])
    scheduled = await next_start_time(sql)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        await watcher.wait_for_poll(sql)
        accepted_rollout(await pause_rollout(api))
        await watcher.wait_for_lines(2)
        await watcher.wait_for_poll(sql)
        await sql.execute("UPDATE rollouts SET paused_at = paused_at - interval '10 minutes'")
        accepted_rollout(await resume_rollout(api))
        await watcher.wait_for_lines(3)
        watcher.process.send_signal(signal.SIGINT)
        assert await watcher.wait_for_exit() == 130
    resumed = await next_start_time(sql)
    assert resumed != scheduled
    assert watcher.lines == [
        f"SCHEDULED: 0 % of users, 0 enrolled; 10 % at {scheduled}, in D",
        f"PAUSED: 0 % of users, 0 enrolled; 10 % at {scheduled}, delayed by the length of"
        " the pause",
        f"SCHEDULED: 0 % of users, 0 enrolled; 10 % at {resumed}, in D",
    ]
    assert watcher.errors == ""


async def test_prints_a_new_plan_and_continues(watch: RunWatch, api: Api, sql: Sql) -> None:
    await create_rollout(api, percent=10)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        accepted_rollout(await set_rollout(api, {"percent": 20}))
        await watcher.wait_for_lines(2)
    assert watcher.lines == [
        "RUNNING: 10 % of users, 0 enrolled",
        "RUNNING: 20 % of users, 0 enrolled",
    ]


async def test_prints_the_failure_and_exits_with_1(watch: RunWatch, api: Api, sql: Sql) -> None:
    await create_rollout(api, percent=10)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        await sql.execute("UPDATE rollouts SET state = 'FAILED', failure = 'the disk is full'")
        assert await watcher.wait_for_exit() == 1
    assert watcher.lines[1:] == ["FAILED at 10 % of users: the disk is full, 0 enrolled"]


async def test_waits_until_a_withdrawal_is_complete(
    watch: RunWatch, api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, 200)
    await create_rollout(api, percent=50)
    async with run_worker(), watch("A") as completed:
        assert await completed.wait_for_exit() == 0
    accepted_rollout(await cancel_rollout(api, withdraw=True))
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        async with run_worker():
            assert await watcher.wait_for_exit() == 0
    assert watcher.lines == [
        "WITHDRAWING: 0 % of users, 100 enrolled",
        "CANCELLED: 0 % of users, 0 enrolled",
    ]


async def test_prints_the_expiry_of_an_expired_rollout(watch: RunWatch, api: Api, sql: Sql) -> None:
    await create_rollout(api, percent=10)
    await sql.execute("UPDATE rollouts SET phase = 'DONE', stage = 1, expires_at = '2024-01-31Z'")
    async with watch("A") as watcher:
        assert await watcher.wait_for_exit() == 0
    assert watcher.lines == ["COMPLETED: 10 % of users until 2024-01-31 00:00:00 UTC, 0 enrolled"]


async def test_ends_when_the_segment_is_deleted_and_its_slug_reused(
    watch: RunWatch, api: Api, sql: Sql
) -> None:
    await create_rollout(api, percent=10)
    await set_progress(sql, 50, 100)
    async with watch("A") as watcher:
        await watcher.wait_for_lines(1)
        assert (await delete_segment(api, "A"))["errors"] == []
        await create_rollout(api, percent=20)
        assert await watcher.wait_for_exit() == 0
    assert watcher.lines[1:] == ["CANCELLED: 0 % of users, 0 enrolled"]


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("NOPE", 'Error: No segment has the slug "NOPE".\n'),
        ("PLAIN", 'Error: The segment "PLAIN" has no rollout.\n'),
        ("a b", "Error: 'a b' is not a slug; allowed: 1 to 255 characters of A-Z a-z 0-9 _ . -,"),
    ],
)
async def test_missing_rollout_is_an_error_with_exit_code_2(
    watch: RunWatch, api: Api, slug: str, message: str
) -> None:
    await create_segment(api, slug="PLAIN")
    async with watch(slug) as watcher:
        assert await watcher.wait_for_exit() == 2
    assert watcher.errors.startswith(message)
    assert watcher.lines == []
