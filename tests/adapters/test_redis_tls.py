"""Redis over TLS: every client verifies the certificate, and `doctor` reports a wrong one."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.rate_limiter import PREFIX, RateLimiter
from segmentql.adapters.redis_client import redis_client
from segmentql.doctor.findings import Verdict
from segmentql.doctor.servers import examine_redis
from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, serving, until
from tests.redis_servers import RedisServer, tls_redis_server, tls_sentinel
from tests.timeline import make_segment, make_users
from tests.tls import make_certificates

ADD = """
mutation { updateUserSegments(input: {userId: 1, add: ["A"], ttlSeconds: 1}) {
  errors { message }
} }
"""


@pytest.fixture(scope="module")
async def certificates() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="segmentql-redis-tls-") as name:
        make_certificates(Path(name))
        yield Path(name)


@pytest.fixture(scope="module")
async def tls_redis(certificates: Path) -> AsyncIterator[RedisServer]:
    async with tls_redis_server(certificates) as server:
        yield server


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ca.crt&", "other-ca.crt&", "certificate verify failed"),
        ("localhost:", "127.0.0.1:", "IP address mismatch"),
        ("rediss://", "redis://", ""),
    ],
)
async def test_wrong_certificate_is_reported(
    tls_redis: RedisServer, old: str, new: str, problem: str
) -> None:
    url = tls_redis.url.replace(old, new)
    if new == "redis://":
        url = url.partition("?")[0]
    (finding,) = [finding async for finding in examine_redis(url)]
    assert finding.verdict is Verdict.FAILED
    assert problem in finding.observation


@pytest.mark.parametrize("parameter", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
async def test_verification_can_be_reduced(tls_redis: RedisServer, parameter: str) -> None:
    url = f"{tls_redis.url.replace('localhost:', '127.0.0.1:')}&{parameter}"
    findings = [finding async for finding in examine_redis(url)]
    assert {finding.verdict for finding in findings} == {Verdict.OK}


@pytest.mark.slow  # the Sentinel needs a second to know the master
async def test_sentinel_and_its_master_use_tls(certificates: Path) -> None:
    async with tls_sentinel(certificates) as url:

        async def responds() -> bool:
            verdicts = {finding.verdict async for finding in examine_redis(url)}
            return verdicts == {Verdict.OK}

        await until(responds)
        (finding,) = [f async for f in examine_redis(url.replace("/ca.crt", "/other-ca.crt"))]
        assert finding.verdict is Verdict.FAILED


async def test_limiter_and_probe_use_tls(tls_redis: RedisServer) -> None:
    limiter = RateLimiter(tls_redis.url, per_second=1000)
    stats = QueueStats(tls_redis.url, seconds=5)
    client = redis_client(tls_redis.url, seconds=5)

    async def is_shared() -> bool:
        assert limiter.try_acquire("caller")
        return bool(await asyncio.to_thread(client.exists, PREFIX + "caller"))

    try:
        assert await stats.ping()
        assert sum((await stats.lengths(["some"])).values()) == 0
        await until(is_shared)
    finally:
        limiter.close()
        stats.close()
        client.close()


async def test_api_and_worker_use_tls(
    tls_redis: RedisServer, settings: Settings, sql: Sql, run_worker: RunWorker
) -> None:
    changed = settings.model_copy(update={"redis_url": tls_redis.url})
    await make_segment(sql, "A")
    await make_users(sql, 1)
    async with (
        run_worker(SEGMENTQL_REDIS_URL=tls_redis.url, SEGMENTQL_SCHEDULER="off"),
        serving(changed) as api,
    ):
        assert (await api(ADD))["updateUserSegments"]["errors"] == []

        async def is_recorded() -> bool:  # only a message can do it, without the scheduler
            return bool(await sql.fetchval("SELECT count(*) = 0 FROM memberships"))

        await until(is_recorded)
