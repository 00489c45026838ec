"""Outages of Redis and PostgreSQL lose no change, and ends are recorded after them."""

import asyncio
import os
import signal
import time
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg
import pytest

from segmentql.local import LocalServers, with_database
from segmentql.settings import Settings
from tests.conftest import Api, RunWorker, Sql, serving, until
from tests.memberships.worker_helpers import ADD, BY_SCHEDULER, add, is_recorded, only_expiry
from tests.readiness import expect_readiness
from tests.timeline import database_now, history_inconsistencies, make_segment


@pytest.mark.e2e
async def test_ends_are_recorded_after_a_redis_outage(
    servers: LocalServers, settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segment(sql, "A")
    async with serving(settings) as api, run_worker():
        await servers.redis.stop()
        try:
            began = time.monotonic()
            await add(api, 7, "A", ttl_seconds=1)
            assert time.monotonic() - began < 1
            end = await only_expiry(sql)
            await until(partial(_is_past, sql, end))
            user = (await api("{ user(id: 7) { segments { slug } } }"))["user"]
            assert user["segments"] == []
            await expect_readiness(api, 200, {"database": "ok", "redis": "degraded", "store": "ok"})
        finally:
            await servers.redis.start()
        back = await database_now(sql)
        await until(partial(is_recorded, sql))
    leave = await sql.fetchrow("SELECT at, recorded_at FROM history WHERE operation = 'LEFT'")
    assert leave is not None
    assert leave["at"] == end
    assert leave["recorded_at"] - back < BY_SCHEDULER


async def _is_past(sql: Sql, moment: datetime) -> bool:
    return await database_now(sql) > moment


@pytest.mark.e2e
async def test_hanging_redis_delays_no_change(
    servers: LocalServers, settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segment(sql, "A")
    assert servers.redis.pid is not None
    async with serving(settings) as api, run_worker():
        os.kill(servers.redis.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            await add(api, 7, "A", ttl_seconds=3)
            assert time.monotonic() - began < 1
            end = await only_expiry(sql)
            await until(partial(_is_past, sql, end))
        finally:
            os.kill(servers.redis.pid, signal.SIGCONT)
        back = await database_now(sql)
        await until(partial(is_recorded, sql))
    assert await sql.fetchval("SELECT recorded_at FROM history WHERE operation = 'LEFT'") - back < (
        BY_SCHEDULER
    )


class Clients:
    """Clients that add one user after the other to a segment and read each, until stopped."""

    READ = "query Read($id: ID!) { user(id: $id) { id segments { slug } } }"

    def __init__(self, api: Api) -> None:
        self._api = api
        self.stop = asyncio.Event()
        self.changes: dict[int, Any] = {}
        self.reads: list[Any] = []
        self.longest_seconds = 0.0

    async def run(self, first_user_id: int) -> None:
        user_id = first_user_id
        while not self.stop.is_set():
            self.changes[user_id] = await self._send(ADD, id=str(user_id), slugs=["A"], ttl=None)
            self.reads.append(await self._send(self.READ, id=str(user_id)))
            user_id += 1

    async def _send(self, query: str, **variables: Any) -> Any:
        began = time.monotonic()
        body = await self._api.body(query, **variables)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        return body

    def codes(self) -> set[str]:
        """Return every `extensions.code` of the responses."""
        bodies = [*self.changes.values(), *self.reads]
        return {error["extensions"]["code"] for body in bodies for error in body.get("errors", ())}

    def accepted(self) -> set[int]:
        """Return the users whose change was stored, even if reading it back failed."""
        return {
            user_id
            for user_id, body in self.changes.items()
            if all(len(error["path"]) > 1 for error in body.get("errors", ()))
        }

    def users_with_error(self, text: str) -> set[int]:
        """Return the users with an error that has this text."""
        return {
            user_id
            for user_id, body in self.changes.items()
            for error in body.get("errors", ())
            if text in error["message"]
        }

    async def have_read(self, times: int) -> bool:
        return len(self.reads) >= times

    async def have_no_errors(self) -> bool:
        return all("errors" not in body for body in self.reads[-100:])


@pytest.mark.e2e
async def test_postgresql_restart_loses_no_change(
    servers: LocalServers, settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    for slug in ("A", "B"):
        await make_segment(sql, slug)
    async with serving(settings) as api, run_worker():
        await add(api, 1, "B", ttl_seconds=1)
        end = await only_expiry(sql)
        clients = Clients(api)
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, 9):
                tasks.create_task(clients.run(1_000_000 * number))
            await until(partial(clients.have_read, 100))
            assert clients.codes() == set()
            await servers.postgres.stop()
            try:
                await until(partial(clients.have_read, len(clients.reads) + 100))
                ready = await api.http.get("/readyz")
                assert (ready.status_code, ready.json()["database"]) == (503, "unavailable")
                assert (await api.http.get("/healthz")).status_code == 200
            finally:
                await servers.postgres.start()
            await until(partial(clients.have_read, len(clients.reads) + 100))
            await until(clients.have_no_errors)
            clients.stop.set()
        assert (await api.http.get("/readyz")).status_code == 200
        assert clients.codes() == {"UNAVAILABLE"}
        assert clients.longest_seconds < settings.statement_timeout_seconds + 2

        fresh = await asyncpg.connect(with_database(servers.superuser_url, "run"))
        back = await database_now(fresh)
        await until(partial(_left, fresh, 1))
    leave = await fresh.fetchrow("SELECT * FROM history WHERE user_id = 1 AND operation = 'LEFT'")
    assert leave is not None
    assert leave["at"] == end
    assert leave["recorded_at"] - max(back, end) < BY_SCHEDULER
    rows = await fresh.fetch("SELECT user_id FROM memberships")
    stored = {row["user_id"] for row in rows}
    stored.discard(1)
    unsure = clients.users_with_error("applied completely or not at all")
    assert clients.accepted() <= stored <= clients.accepted() | unsure
    assert (
        clients.users_with_error("nothing was changed")
        == clients.changes.keys() - clients.accepted() - unsure
    )
    assert await history_inconsistencies(fresh) == {}
    await fresh.close()


async def _left(sql: Sql, user_id: int) -> bool:
    return bool(
        await sql.fetchval(
            "SELECT count(*) FROM history WHERE user_id = $1 AND operation = 'LEFT'", user_id
        )
    )
