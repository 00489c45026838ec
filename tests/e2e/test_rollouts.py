"""Rollouts survive killed workers, a flushed Redis and a restarted PostgreSQL."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from redis import Redis

from segmentql.local.orphans import ON_LINUX
from segmentql.rollouts.chunks import CHUNK_USERS
from segmentql.rollouts.sampling import SAMPLING_LOCK_CLASS
from tests.conftest import Api, Sql, until
from tests.e2e.chaos_client import RECOVERY_SECONDS
from tests.e2e.test_chaos import LONG_LIFE_SECONDS, superuser_url
from tests.e2e.up import Up, running
from tests.rollouts.helpers import expected_sample, history_counts, membership_ids, store_users
from tests.rollouts.worker_helpers import (
    assert_members_are,
    has_status,
    read_pass,
    reject_backward_progress,
    replace_rollout,
    worker_is_blocked,
)
from tests.timeline import add_members, make_segment

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="looks for left processes in Linux' /proc"),
]


USERS = range(1, 100_001)
BY_HAND, ROLLED_OUT = 1, 2
"""The segment ids: one without a rollout, and the one with the rollout, whose slug is A."""

UNTOUCHED = """
SELECT md5(string_agg(row::text, '|' ORDER BY row::text)) FROM (
    SELECT to_jsonb(u) AS row FROM users u
    UNION ALL SELECT to_jsonb(m) FROM memberships m WHERE segment_id <> $1
    UNION ALL SELECT to_jsonb(h) FROM history h WHERE segment_id <> $1
    UNION ALL SELECT to_jsonb(e) FROM exclusions e
    UNION ALL SELECT to_jsonb(s) FROM segments s WHERE id <> $1
) AS everything
"""


SAMPLING = 0
"""The number of the step before the first chunk of a pass."""


class Chaos:
    """Runs rollouts in a running `segmentql up`, and interrupts them."""

    def __init__(self, up: Up, api: Api) -> None:
        self._up = up
        self._api = api
        self.url = superuser_url(up)
        self.worker_deaths = 0
        self._worker_died_at = time.monotonic()

    async def run_rollout(
        self,
        percent: int,
        changed: Set[int],
        interruptions: Mapping[int, Callable[[], Awaitable[None]]],
    ) -> None:
        """Set the rollout to a percent, which changes these users, and wait until it is completed.

        `interruptions` are by the chunk in which the worker is stopped for them. A restart of
        PostgreSQL must be the last, because it releases the locks that stop the worker.
        """
        async with AsyncExitStack() as stack:
            stops = {
                number: await stack.enter_async_context(self._stop(number, changed))
                for number in interruptions
            }
            await replace_rollout(self._api, "A", percent=percent)
            for number, interrupt in interruptions.items():
                await until(partial(self._is_stopped_at, number), seconds=RECOVERY_SECONDS)
                await interrupt()
                await stops[number].close()
        await until(partial(has_status, self._api, "A", "COMPLETED"), seconds=RECOVERY_SECONDS)

    async def kill_worker(self) -> None:
        pid = self._up.pid_of("worker")
        assert pid
        os.kill(pid, signal.SIGKILL)
        self.worker_deaths += 1
        await self._up.wait_for_output("worker restarted", times=self.worker_deaths)
        self._worker_died_at = time.monotonic()

    async def kill_worker_and_flush_redis(self) -> None:
        await self.kill_worker()
        with Redis.from_url(redis_url(self._up)) as redis:
            redis.flushall()

    async def restart_postgresql(self) -> None:
        pid = self._up.pid_of("postgresql")
        assert pid
        os.kill(pid, signal.SIGINT)  # a "fast shutdown"; the supervisor restarts the server
        await self._up.wait_for_output("PostgreSQL restarted")

    async def worker_has_lived_long(self) -> bool:
        """`segmentql up` stops after five short lives in a row."""
        return time.monotonic() - self._worker_died_at > LONG_LIFE_SECONDS

    @asynccontextmanager
    async def _stop(self, number: int, changed: Set[int]) -> AsyncIterator[Sql]:
        """Stop the next worker at a chunk, until the connection is closed."""
        connection = await asyncpg.connect(self.url)
        await connection.execute("BEGIN")
        if number == SAMPLING:  # a lock like that of a transaction that stores users
            await connection.execute("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        else:
            first = (number - 1) * CHUNK_USERS
            chosen = min(user_id for user_id in changed if user_id > first)
            assert chosen <= first + CHUNK_USERS
            await connection.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", chosen)
        try:
            yield connection
        finally:
            await connection.close()

    async def _is_stopped_at(self, number: int) -> bool:
        sql = await asyncpg.connect(self.url)
        try:
            if number == SAMPLING:
                return await takes_sample(sql)
            at = await read_pass(sql, ROLLED_OUT)
            return at["cursor_user_id"] == (number - 1) * CHUNK_USERS and await worker_is_blocked(
                sql
            )
        finally:
            await sql.close()


async def takes_sample(sql: Sql) -> bool:
    statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1"
    return bool(await sql.fetchval(statement, SAMPLING_LOCK_CLASS))


def redis_url(up: Up) -> str:
    address = re.search(r"Redis on (\S+),", up.output)
    assert address
    password = json.loads((up.data / "secrets.json").read_text())["redis"]
    return f"redis://:{password}@{address[1]}/0"


class Reader:
    """Reads in a loop whether one user is a member, and how many members there are."""

    QUERY = """
    query Read($id: ID!) {
      user(id: $id) { isIn(slug: "A") } segment(slug: "A") { memberCount }
    }
    """

    def __init__(self, http: httpx.AsyncClient, user_id: int) -> None:
        self._http = http
        self._user_id = user_id
        self.answers: list[Any] = []
        self.reasons: list[str] = []

    async def run(self) -> None:
        while True:
            response = await self._http.post(
                "/graphql", json={"query": self.QUERY, "variables": {"id": str(self._user_id)}}
            )
            body = response.json()
            if "errors" in body:
                self.reasons += [error["extensions"]["code"] for error in body["errors"]]
            else:
                self.answers.append(body["data"])
            await asyncio.sleep(0.02)


async def test_percents_are_exact_despite_killed_processes(home: Path) -> None:
    tenth, quarter, twentieth = (expected_sample(ROLLED_OUT, USERS, p) for p in (10, 25, 5))
    assert (len(tenth), len(quarter), len(twentieth)) == (10_000, 25_000, 5_000)
    assert twentieth < tenth < quarter
    async with (
        running(home) as up,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{up.port}", timeout=60) as http,
    ):
        await up.wait_for_output("ready after")
        chaos = Chaos(up, Api(http))
        sql = await asyncpg.connect(chaos.url)
        await store_users(sql, len(USERS))
        assert await make_segment(sql, "by-hand") == BY_HAND
        await add_members(sql, BY_HAND, 1_000)
        assert await make_segment(sql, "A") == ROLLED_OUT
        untouched = await sql.fetchval(UNTOUCHED, ROLLED_OUT)
        reader = Reader(http, min(twentieth))
        async with reject_backward_progress(chaos.url), asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.run())

            await chaos.run_rollout(
                10, tenth, {SAMPLING: chaos.kill_worker, 3: chaos.kill_worker_and_flush_redis}
            )
            await assert_members_are(sql, ROLLED_OUT, tenth)
            first = await membership_ids(sql, ROLLED_OUT)
            reads_before = len(reader.answers)
            await until(chaos.worker_has_lived_long)
            assert reader.reasons == []

            await chaos.run_rollout(
                25,
                quarter - tenth,
                {2: chaos.kill_worker, 3: chaos.kill_worker, 4: chaos.restart_postgresql},
            )
            sql = await asyncpg.connect(chaos.url)
            await assert_members_are(sql, ROLLED_OUT, quarter)
            assert first.items() <= (await membership_ids(sql, ROLLED_OUT)).items()

            await chaos.run_rollout(5, quarter - twentieth, {3: chaos.kill_worker_and_flush_redis})
            await assert_members_are(sql, ROLLED_OUT, twentieth)
            assert (await membership_ids(sql, ROLLED_OUT)).items() <= first.items()
            reading.cancel()

        assert chaos.worker_deaths == 5
        assert await history_counts(sql, ROLLED_OUT) == {
            ("JOINED", "ROLLOUT"): len(quarter),
            ("LEFT", "ROLLOUT"): len(quarter - twentieth),
        }
        assert await sql.fetchval(UNTOUCHED, ROLLED_OUT) == untouched
        assert_reads_succeeded(reader, reads_before)
        await sql.close()
        assert await up.stop() == 0


def assert_reads_succeeded(reader: Reader, reads_before: int) -> None:
    """A user in every sample is a member from the first pass to the end, and is readable."""
    assert {answer["user"]["isIn"] for answer in reader.answers[reads_before:]} == {True}
    assert max(answer["segment"]["memberCount"] for answer in reader.answers) == 25_000
    assert set(reader.reasons) <= {"UNAVAILABLE"}  # these occur only since PostgreSQL's restart
