"""Checks of Redis and of the object store."""

import time
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from segmentql.adapters.broker import REDIS_TIMEOUT_SECONDS
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.database_url import shown_address
from segmentql.doctor.findings import Finding, Verdict, clock_finding
from segmentql.errors import BucketMissing, StoreFailed
from segmentql.settings import Settings

OLDEST_REDIS: Final = (6, 0)
MOST_STORE_SKEW_SECONDS: Final = 60
"""A store refuses what is signed by a clock a quarter of an hour off; links run out by its own."""

STORE_LIMITS: Final = StoreTimeouts(read_seconds=5, attempts=1)


async def examine_redis(url: str) -> AsyncIterator[Finding]:
    """Check Redis' login, version, clock and memory policy."""
    client = Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS
    )
    where = shown_address(url)
    try:
        before = time.time()
        seconds, microseconds = await client.time()
        skew = seconds + microseconds / 1e6 - (before + time.time()) / 2
        info = await client.info("server")
        memory = await client.info("memory")
    except (RedisError, OSError) as error:
        yield _redis_problem(where, error, has_password=bool(urlsplit(url).password))
        return
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) >= OLDEST_REDIS:
        yield Finding("Redis", Verdict.OK, f"{where}, {version}")
    else:
        yield Finding("Redis", Verdict.FAILED, f"{where}, {version}", "upgrade to 6.0 or later")
    yield clock_finding("Redis' clock", skew)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("Redis' memory", Verdict.OK, "nothing is evicted")
    else:
        yield Finding(
            "Redis' memory",
            Verdict.WARNING,
            f"maxmemory-policy is {policy}, so jobs may be thrown away",
            "set it to noeviction",
        )


def _redis_problem(where: str, error: Exception, *, has_password: bool) -> Finding:
    observation = str(error)
    remedy = "check that it runs there; until then ends are recorded late, and nothing is lost"
    if isinstance(error, AuthenticationError):  # also if no password was sent
        observation = "it rejects the password" if has_password else "it needs a password"
        remedy = (
            "set SEGMENTQL_REDIS_URL to redis://:PASSWORD@HOST:PORT/0, with Redis' own password"
        )
    elif isinstance(error, NoPermissionError):
        remedy = "allow its user all commands on this database's keys"
    return Finding("Redis", Verdict.FAILED, f"{where}: {observation}", remedy)


async def examine_store(settings: Settings) -> AsyncIterator[Finding]:
    """Check the bucket, and the clock by which links expire."""
    storage = Storage(settings, STORE_LIMITS)
    where = f"{settings.store.endpoint_url}, bucket {settings.s3_bucket}"
    try:
        before = time.time()
        clock = await storage.check()
        skew = clock.timestamp() - (before + time.time()) / 2
    except BucketMissing:
        yield Finding("object store", Verdict.FAILED, where, "run `segmentql bucket`")
        return
    except StoreFailed as failed:
        yield Finding(
            "object store",
            Verdict.FAILED,
            f"{where}: {failed.reason}",
            "check that it runs there, and SEGMENTQL_S3_ACCESS_KEY and SEGMENTQL_S3_SECRET_KEY;"
            " until then reports fail, and nothing else does",
        )
        return
    finally:
        await storage.close()
    yield Finding("object store", Verdict.OK, where)
    yield _store_clock(skew)


def _store_clock(skew_seconds: float) -> Finding:
    finding = clock_finding("object store's clock", skew_seconds)
    if abs(skew_seconds) <= MOST_STORE_SKEW_SECONDS:
        return Finding(finding.check, Verdict.OK, finding.observation)
    remedy = (
        "links run out too early or too late, and beyond 15 minutes none works: run NTP on both"
    )
    return Finding(finding.check, Verdict.WARNING, finding.observation, remedy)
