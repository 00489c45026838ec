"""`segmentql rollout watch`: tells what a rollout does, until its end."""

import signal

import pytest

from tests.cli.watcher import Watch, see_users, start_rollout
from tests.conftest import Api, RunWorker, Sql
from tests.operations import create_segment, delete_segment
from tests.rollouts.graphql_client import (
    cancel_rollout,
    done,
    pause_rollout,
    resume_rollout,
    set_rollout,
)
from tests.rollouts.helpers import store_users

pytestmark = pytest.mark.slow  # each test starts a process of the command

HALF_THEN_ALL = {"stages": [{"percent": 50}, {"percent": 100, "afterSeconds": 3600}]}


async def next_start(sql: Sql) -> str:
    start = await sql.fetchval("SELECT max(starts_at) FROM rollout_stages")
    return f"{start:%Y-%m-%d %H:%M:%S} UTC"


async def test_tells_each_stage_and_ends_well_when_all_are_done(
    watch: Watch, api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, 200)
    await start_rollout(api, **HALF_THEN_ALL)
    start = await next_start(sql)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        async with run_worker():
            await watcher.has_told(2)
        await sql.execute("UPDATE rollout_stages SET starts_at = now() WHERE number = 2")
        await watcher.has_told(3)
        async with run_worker():
            assert await watcher.ends() == 0
    assert watcher.lines == [
        f"RUNNING: 50 % of users, stage 1 of 2, 0 enrolled; 100 % at {start}, in D",
        f"WAITING: 50 % of users, stage 1 of 2, 100 enrolled; 100 % at {start}, in D",
        "RUNNING: 100 % of users, stage 2 of 2, 100 enrolled",
        "COMPLETED: 100 % of users, stage 2 of 2, 200 enrolled",
    ]
    assert watcher.errors == ""


async def test_tells_each_tenth_of_the_progress_once(watch: Watch, api: Api, sql: Sql) -> None:
    await start_rollout(api, percent=33.333)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        for seen in (999, 1_000, 1_499, 4_711, 4_999):
            await see_users(sql, seen, 10_000)
            await watcher.has_looked_again(sql)
        done(await cancel_rollout(api))
        assert await watcher.ends() == 0
    assert watcher.lines == [
        "RUNNING: 33.333 % of users, 0 enrolled",
        "10 %: 1,000 of 10,000 users seen",
        "40 %: 4,711 of 10,000 users seen",
        "CANCELLED: 33.333 % of users, 0 enrolled",
    ]


async def test_goes_on_while_it_is_scheduled_or_paused_and_says_so_once(
    watch: Watch, api: Api, sql: Sql
) -> None:
    await start_rollout(api, stages=[{"percent": 10, "afterSeconds": 3600}])
    scheduled = await next_start(sql)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        await watcher.has_looked_again(sql)
        done(await pause_rollout(api))
        await watcher.has_told(2)
        await watcher.has_looked_again(sql)
        await sql.execute("UPDATE rollouts SET held_at = held_at - interval '10 minutes'")
        done(await resume_rollout(api))
        await watcher.has_told(3)
        watcher.process.send_signal(signal.SIGINT)
        assert await watcher.ends() == 130
    resumed = await next_start(sql)
    assert resumed != scheduled
    assert watcher.lines == [
        f"SCHEDULED: 0 % of users, 0 enrolled; 10 % at {scheduled}, in D",
        f"PAUSED: 0 % of users, 0 enrolled; 10 % at {scheduled}, and as much later as the pause is"
        " long",
        f"SCHEDULED: 0 % of users, 0 enrolled; 10 % at {resumed}, in D",
    ]
    assert watcher.errors == ""


async def test_a_new_plan_is_told_and_watched(watch: Watch, api: Api, sql: Sql) -> None:
    await start_rollout(api, percent=10)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        done(await set_rollout(api, {"percent": 20}))
        await watcher.has_told(2)
    assert watcher.lines == [
        "RUNNING: 10 % of users, 0 enrolled",
        "RUNNING: 20 % of users, 0 enrolled",
    ]


async def test_a_failure_is_told_and_ends_it_with_1(watch: Watch, api: Api, sql: Sql) -> None:
    await start_rollout(api, percent=10)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        await sql.execute("UPDATE rollouts SET state = 'FAILED', failure = 'the disk is full'")
        assert await watcher.ends() == 1
    assert watcher.lines[1:] == ["FAILED at 10 % of users: the disk is full, 0 enrolled"]


async def test_a_withdrawal_is_watched_to_its_end(
    watch: Watch, api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await store_users(sql, 200)
    await start_rollout(api, percent=50)
    async with run_worker(), watch("A") as before:
        assert await before.ends() == 0
    done(await cancel_rollout(api, withdraw=True))
    async with watch("A") as watcher:
        await watcher.has_told(1)
        async with run_worker():
            assert await watcher.ends() == 0
    assert watcher.lines == [
        "WITHDRAWING: 0 % of users, 100 enrolled",
        "CANCELLED: 0 % of users, 0 enrolled",
    ]


async def test_a_rollout_whose_end_has_passed_is_told_with_it(
    watch: Watch, api: Api, sql: Sql
) -> None:
    await start_rollout(api, percent=10)
    await sql.execute("UPDATE rollouts SET phase = 'DONE', stage = 1, expires_at = '2024-01-31Z'")
    async with watch("A") as watcher:
        assert await watcher.ends() == 0
    assert watcher.lines == ["COMPLETED: 10 % of users until 2024-01-31 00:00:00 UTC, 0 enrolled"]


async def test_ends_with_the_segment_whatever_bears_its_slug_next(
    watch: Watch, api: Api, sql: Sql
) -> None:
    await start_rollout(api, percent=10)
    await see_users(sql, 50, 100)
    async with watch("A") as watcher:
        await watcher.has_told(1)
        assert (await delete_segment(api, "A"))["errors"] == []
        await start_rollout(api, percent=20)
        assert await watcher.ends() == 0
    assert watcher.lines[1:] == ["CANCELLED: 0 % of users, 0 enrolled"]


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("NOPE", "Error: No segment bears: NOPE.\n"),
        ("PLAIN", "Error: Segment PLAIN has no rollout.\n"),
        ("a b", "Error: 'a b' is not a slug; allowed: 1 to 255 of A-Z a-z 0-9 _ . -,"),
    ],
)
async def test_where_there_is_nothing_to_watch_it_says_so_and_ends_with_2(
    watch: Watch, api: Api, slug: str, message: str
) -> None:
    await create_segment(api, slug="PLAIN")
    async with watch(slug) as watcher:
        assert await watcher.ends() == 2
    assert watcher.errors.startswith(message)
    assert watcher.lines == []
