"""The worker records due leaves, both in this process and as `segmentql worker`."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from redis import Redis

from segmentql.adapters.jobs import JobPublisher, Message, register_actors, worker_middleware
from segmentql.local import LocalServers, with_database
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from segmentql.settings import Settings
from segmentql.worker import ACTORS, STOP_SECONDS, Runtime
from tests.conftest import Api, RunWorker, Sql, serving, until
from tests.timeline import (
    SECOND,
    add_members,
    add_membership,
    database_now,
    history_entries,
    history_inconsistencies,
    make_segment,
    mark_deleted,
)

BY_MESSAGE = 2 * SECOND
"""The maximum delay until a delayed message records an end."""
BY_SCHEDULER = 5 * SECOND
"""The maximum delay until the scheduler records an end after a lost message or an outage."""

ADD = """
mutation Add($id: ID!, $slugs: [String!], $ttl: Int) {
  updateUserSegments(input: {userId: $id, add: $slugs, ttlSeconds: $ttl}) {
    user { memberships { expiresAt } } errors { message }
  }
}
"""


async def add(api: Api, user_id: int, *slugs: str, ttl_seconds: int | None = None) -> None:
    payload = (await api(ADD, id=str(user_id), slugs=slugs, ttl=ttl_seconds))["updateUserSegments"]
    assert payload["errors"] == []


async def is_recorded(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) = 0 FROM memberships"))


async def lateness(sql: Sql) -> timedelta:
    """Return the delay from the only leave to its record, by the database's clock."""
    delay: timedelta = await sql.fetchval(
        "SELECT recorded_at - at FROM history WHERE operation = 'LEFT'"
    )
    return delay


async def only_expiry(sql: Sql) -> datetime:
    end: datetime = await sql.fetchval("SELECT expires_at FROM memberships")
    return end


# --- Actors in this process -----------------------------------------------------------------------


@asynccontextmanager
async def drained(
    settings: Settings,
) -> AsyncIterator[Callable[[Sequence[Message]], Awaitable[None]]]:
    """Yield a worker on a stub broker, its publisher, and a function that awaits all jobs."""
    publisher = JobPublisher(settings.redis_url)
    runtime = Runtime(settings.model_copy(update={"scheduler": "off"}), publisher)
    broker = StubBroker(middleware=[*worker_middleware(), runtime])
    register_actors(broker, ACTORS, runtime.database)
    worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=4)

    def drain(messages: Sequence[Message]) -> None:
        for message in messages:
            broker.get_actor(message.job.name).send(*message.args)
        for queue in {message.job.queue for message in messages}:
            broker.join(queue, timeout=30_000)
        worker.join()

    await asyncio.to_thread(worker.start)
    try:
        yield lambda messages: asyncio.to_thread(drain, messages)
    finally:
        await asyncio.to_thread(worker.stop)
        publisher.close()


async def test_actors_record_due_leaves_once_for_repeated_messages(
    settings: Settings, sql: Sql
) -> None:
    alive, deleted = await make_segment(sql, "A"), await make_segment(sql, "B")
    for user_id in (1, 2, 3):
        await add_membership(sql, user_id, alive, ends_in=-SECOND)
        await add_membership(sql, user_id, deleted)
    await add_membership(sql, 4, alive)
    await mark_deleted(sql, deleted)
    async with drained(settings) as drain:
        await drain(
            [Message(EXPIRE_DUE_MEMBERSHIPS), Message(RECORD_SEGMENT_LEAVES, (deleted,))] * 5
            + [Message(RECORD_SEGMENT_LEAVES, (alive,)), Message(RECORD_SEGMENT_LEAVES, (404,))]
        )
    assert [row["user_id"] for row in await sql.fetch("SELECT * FROM memberships")] == [4]
    leaves = [
        (e.user_id, e.segment_id, e.cause)
        for e in await history_entries(sql)
        if e.operation == "LEFT"
    ]
    assert sorted(leaves) == sorted(
        [(user_id, alive, "TTL") for user_id in (1, 2, 3)]
        + [(user_id, deleted, "SEGMENT_DELETED") for user_id in (1, 2, 3)]
    )
    assert await history_inconsistencies(sql) == {}


async def test_actor_that_loses_its_connection_finishes_on_another(
    settings: Settings, sql: Sql
) -> None:
    segment_id = await make_segment(sql, "A")
    async with drained(settings) as drain:
        await add_membership(sql, 1, segment_id, ends_in=-SECOND)
        await drain([Message(EXPIRE_DUE_MEMBERSHIPS)])
        killed = await sql.fetch(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'segmentql worker'"
        )
        assert len(killed) >= 1
        await add_membership(sql, 2, segment_id, ends_in=-SECOND)
        await drain([Message(EXPIRE_DUE_MEMBERSHIPS)])
    assert await is_recorded(sql)


# --- `segmentql worker` -------------------------------------------------------------------------


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
        await until(partial(_holds, sql))
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
        await until(partial(_holds, sql))
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


async def _holds(sql: Sql) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM leases WHERE expires_at > now()"))


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
            ready = await api.http.get("/readyz")
            assert (ready.status_code, ready.json()) == (
                200,
                {"database": "ok", "redis": "degraded", "store": "ok"},
            )
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
