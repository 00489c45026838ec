"""Checks of Redis and the object store."""

import time
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from segmentql.adapters.broker import REDIS_TIMEOUT_SECONDS
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.database_url import display_address
from segmentql.doctor.findings import Finding, Verdict, clock_finding
from segmentql.errors import BucketMissing, StoreFailed
from segmentql.settings import Settings

MIN_REDIS_VERSION: Final = (6, 0)
MAX_STORE_SKEW_SECONDS: Final = 60
"""A store rejects signatures from clocks that differ by 15 minutes. Links expire by its clock."""

STORE_TIMEOUTS: Final = StoreTimeouts(read_seconds=5, attempts=1)


async def examine_redis(url: str) -> AsyncIterator[Finding]:
    """Check the credentials, version, clock and memory policy of Redis."""
    client = Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS
    )
    address = display_address(url)
    try:
        before = time.time()
        seconds, microseconds = await client.time()
        skew = seconds + microseconds / 1e6 - (before + time.time()) / 2
        info = await client.info("server")
        memory = await client.info("memory")
    except (RedisError, OSError) as error:
        yield _redis_problem(address, error, has_password=bool(urlsplit(url).password))
        return
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) >= MIN_REDIS_VERSION:
        yield Finding("Redis", Verdict.OK, f"{address}, {version}")
    else:
        yield Finding("Redis", Verdict.FAILED, f"{address}, {version}", "upgrade to 6.0 or later")
    yield clock_finding("Redis' clock", skew)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("Redis' memory", Verdict.OK, "nothing is evicted")
    else:
        yield Finding(
            "Redis' memory",
            Verdict.WARNING,
            f"maxmemory-policy is {policy}, so jobs may be evicted",
            "set it to noeviction",
        )


def _redis_problem(address: str, error: Exception, *, has_password: bool) -> Finding:
    observation = str(error)
    remedy = "check that it runs at this address. Until then, jobs are delayed but not lost"
    if isinstance(error, AuthenticationError):  # also if no password was sent
        observation = "it rejects the password" if has_password else "it needs a password"
        remedy = (
            "set SEGMENTQL_REDIS_URL to redis://:PASSWORD@HOST:PORT/0 with the password of Redis"
        )
    elif isinstance(error, NoPermissionError):
        remedy = "allow its user all commands on the keys of this database"
    return Finding("Redis", Verdict.FAILED, f"{address}: {observation}", remedy)


async def examine_store(settings: Settings) -> AsyncIterator[Finding]:
    """Check the bucket and the clock of the object store."""
    storage = Storage(settings, STORE_TIMEOUTS)
    address = f"{settings.store.endpoint_url}, bucket {settings.s3_bucket}"
    try:
        before = time.time()
        clock = await storage.check()
        skew = clock.timestamp() - (before + time.time()) / 2
    except BucketMissing:
        yield Finding("object store", Verdict.FAILED, address, "run `segmentql bucket`")
        return
    except StoreFailed as failed:
        yield Finding(
            "object store",
            Verdict.FAILED,
            f"{address}: {failed.reason}",
            "check that it runs at this address, SEGMENTQL_S3_ACCESS_KEY and"
            " SEGMENTQL_S3_SECRET_KEY. Until then, reports, imports and exports fail. Nothing else"
            " is affected",
        )
        return
    finally:
        await storage.close()
    yield Finding("object store", Verdict.OK, address)
    yield _store_clock(skew)


def _store_clock(skew_seconds: float) -> Finding:
    finding = clock_finding("object store's clock", skew_seconds)
    if abs(skew_seconds) <= MAX_STORE_SKEW_SECONDS:
        return Finding(finding.check, Verdict.OK, finding.observation)
    remedy = (
        "run NTP on both machines. Links expire too early or too late, beyond 15 minutes all fail"
    )
    return Finding(finding.check, Verdict.WARNING, finding.observation, remedy)
