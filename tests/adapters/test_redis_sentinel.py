"""Redis with Sentinels: a failover loses no job and fails no request."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from segmentql import metrics
from segmentql.adapters.change_hints import ChangeHints
from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.rate_limiter import PREFIX, RateLimiter
from segmentql.adapters.redis_client import redis_client
from segmentql.doctor.findings import Finding, Verdict
from segmentql.doctor.servers import examine_redis, server_finding
from segmentql.local.ports import free_port
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.settings import Settings
from tests.conftest import Api, RunWorker, Sql, serving, suspended, until
from tests.redis_servers import (
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    SentinelServers,
    redis_server,
    sentinel_servers,
)
from tests.timeline import make_segment, make_users

pytestmark = pytest.mark.slow  # five processes; a failover and a new replica take some 10 s each

ADD = """
mutation Add($id: ID!) {
  updateUserSegments(input: {userId: $id, add: ["A"], ttlSeconds: 1}) { errors { message } }
}
"""


@pytest.fixture
async def redis() -> AsyncIterator[SentinelServers]:
    async with sentinel_servers() as servers:
        yield servers


async def examined(url: str) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine_redis(url)}


async def master_port(servers: SentinelServers) -> int:
    """Return the port of the server to which a new client connects."""
    client = redis_client(servers.url, seconds=5)
    try:
        settings: Any = await asyncio.to_thread(client.config_get, "port")
        return int(settings["port"])
    finally:
        client.close()


class Clients:
    """The clients of an API process that are not visible in its responses."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.limiter = RateLimiter(url, per_second=1000)
        self.stats = QueueStats(url, seconds=1)
        self.hints = ChangeHints(url)
        self._received = 0
        self.hints.listen(self._count)

    def _count(self) -> None:
        self._received += 1

    def close(self) -> None:
        self.limiter.close()
        self.stats.close()
        self.hints.close()

    async def have_recovered(self) -> bool:
        before = self._received
        self.hints.publish()
        assert self.limiter.try_acquire("caller")  # also without Redis
        await asyncio.sleep(0.1)
        return self._received > before and await self._is_shared() and await self.stats.ping()

    async def _is_shared(self) -> bool:
        client = redis_client(self._url, seconds=1)
        try:
            return bool(await asyncio.to_thread(client.exists, PREFIX + "caller"))
        except (RedisError, OSError):
            return False
        finally:
            client.close()


def lost_messages() -> float:
    (family,) = metrics.MESSAGES_LOST.labels(EXPIRE_DUE_MEMBERSHIPS.name).collect()
    return next(sample.value for sample in family.samples if sample.name.endswith("_total"))


class Memberships:
    """Memberships of one second, which the worker must end."""

    def __init__(self, api: Api, sql: Sql) -> None:
        self._api = api
        self._sql = sql
        self._user_ids = itertools.count(1)

    async def add_and_await_ends(self) -> None:
        for user_id in itertools.islice(self._user_ids, 5):
            payload = (await self._api(ADD, id=str(user_id)))["updateUserSegments"]
            assert payload["errors"] == []
        await until(self._are_ended, seconds=60)

    async def _are_ended(self) -> bool:
        return bool(await self._sql.fetchval("SELECT count(*) = 0 FROM memberships"))


async def test_failovers_lose_no_job_and_fail_no_request(
    redis: SentinelServers, settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segment(sql, "A")
    await make_users(sql, *range(1, 100))
    first, second = redis.redis
    clients = Clients(redis.url)
    async with (
        run_worker(SEGMENTQL_REDIS_URL=redis.url),
        serving(settings.model_copy(update={"redis_url": redis.url})) as api,
    ):
        memberships = Memberships(api, sql)
        await memberships.add_and_await_ends()
        await until(clients.have_recovered)

        await first.process.kill()
        await memberships.add_and_await_ends()
        await until(clients.have_recovered, seconds=60)
        assert await master_port(redis) == second.port

        await first.process.start()  # it is a master until a Sentinel makes it a replica
        await until(redis.has_replica, seconds=60)
        await memberships.add_and_await_ends()
        await redis.fail_over()  # afterwards, the old master responds, but accepts no writes
        await until(redis.has_replica, seconds=60)
        assert await master_port(redis) == first.port
        await memberships.add_and_await_ends()
        await until(clients.have_recovered, seconds=60)

        before = lost_messages()
        await memberships.add_and_await_ends()
        assert lost_messages() == before
    clients.close()


async def test_sentinel_that_does_not_respond_is_skipped(redis: SentinelServers) -> None:
    with suspended(redis.sentinels[0].process):
        await redis.sentinels[1].process.kill()
        findings = await examined(redis.url)
    assert {finding.verdict for finding in findings.values()} == {Verdict.OK}


async def test_doctor_reports_wrong_kinds_of_server(redis: SentinelServers) -> None:
    findings = await examined(redis.url)
    assert list(findings) == ["Redis", "Redis' clock", "Redis' memory"]
    assert findings["Redis"].observation.startswith(f"{MASTER_NAME} of Sentinel 127.0.0.1:")
    sentinel, replica = redis.sentinels[0], redis.redis[1]
    for url, observation, remedy in (
        (
            redis.url.replace(f"/{MASTER_NAME}/", "/unknown/"),
            "no Sentinel responds that knows a reachable master of this name",
            "check the addresses and the credentials of the Sentinels, and the name of the master",
        ),
        (
            redis.url.replace(SENTINEL_PASSWORD, "wrong"),
            "no Sentinel responds that knows a reachable master of this name",
            "check the addresses and the credentials of the Sentinels, and the name of the master",
        ),
        (redis.url.replace(f":{PASSWORD}@", ":wrong@"), "it rejects the password", "set SEGMENTQL"),
        (sentinel.url, f"127.0.0.1:{sentinel.port}/0 is a Sentinel", "set SEGMENTQL_REDIS_URL to"),
        (replica.url, "is a replica, which accepts no writes", "set SEGMENTQL_REDIS_URL to the"),
    ):
        (finding,) = (await examined(url)).values()
        assert finding.verdict is Verdict.FAILED
        assert observation in finding.observation
        assert finding.remedy.startswith(remedy)
        assert not {PASSWORD, SENTINEL_PASSWORD} & set(f"{finding}".split())


async def test_doctor_reports_a_cluster_and_an_eviction_policy() -> None:
    async with redis_server("cluster-enabled yes", f"cluster-port {free_port()}") as server:
        (finding,) = (await examined(server.url)).values()
        assert finding.verdict is Verdict.FAILED
        assert "a Redis Cluster, which is not supported" in finding.observation
    async with redis_server("maxmemory 100mb", "maxmemory-policy allkeys-lru") as server:
        finding = (await examined(server.url))["Redis' memory"]
        assert finding.verdict is Verdict.WARNING
        assert finding.observation == "maxmemory-policy is allkeys-lru, so jobs may be evicted"
        assert finding.remedy.startswith("run CONFIG SET maxmemory-policy noeviction")


def test_old_version_of_redis_is_reported() -> None:
    info = {"redis_version": "5.0.14", "redis_mode": "standalone", "role": "master"}
    finding = server_finding("h:6379/0", info)
    assert (finding.verdict, finding.remedy) == (Verdict.FAILED, "upgrade to 6.0 or later")
