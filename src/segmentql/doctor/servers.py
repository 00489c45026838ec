"""Checks of Redis and the object store."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.sentinel import MasterNotFoundError

from segmentql.adapters.broker import REDIS_TIMEOUT_SECONDS
from segmentql.adapters.redis_client import redis_client
from segmentql.adapters.s3 import StoreTimeouts
from segmentql.adapters.storage import Storage
from segmentql.doctor.findings import Finding, Verdict, clock_finding
from segmentql.errors import BucketMissing, StoreFailed
from segmentql.redis_url import RedisTarget, parse_redis_url
from segmentql.settings import Settings

MIN_REDIS_VERSION: Final = (6, 0)
NO_EVICTION: Final = "noeviction"
MAX_STORE_SKEW_SECONDS: Final = 60
"""A store rejects signatures from clocks that differ by 15 minutes. Links expire by its clock."""

STORE_TIMEOUTS: Final = StoreTimeouts(read_seconds=5, attempts=1)


async def examine_redis(url: str) -> AsyncIterator[Finding]:
    """Check the credentials, version, clock and memory policy of Redis."""
    target = parse_redis_url(url)
    try:
        state = await asyncio.to_thread(_read_redis, url)
    except (RedisError, OSError) as error:
        yield _redis_problem(target, error)
        return
    finding = server_finding(target.address, state.info)
    yield finding
    if finding.verdict is Verdict.OK:
        yield clock_finding("Redis' clock", state.skew_seconds)
        yield _memory(str(state.info.get("maxmemory_policy", NO_EVICTION)))


@dataclass(frozen=True)
class _RedisState:
    info: Mapping[str, Any]
    skew_seconds: float


def _read_redis(url: str) -> _RedisState:
    client = redis_client(url, seconds=REDIS_TIMEOUT_SECONDS)
    try:
        info: Mapping[str, Any] = client.info()
        if info["redis_mode"] == "sentinel":  # it has no TIME
            return _RedisState(info, 0)
        before = time.time()
        seconds, microseconds = client.time()
        return _RedisState(info, seconds + microseconds / 1e6 - (before + time.time()) / 2)
    finally:
        client.close()


def server_finding(address: str, info: Mapping[str, Any]) -> Finding:
    """Return the finding about the kind, the role and the version of a Redis server.

    Args:
        address: the address without credentials.
        info: the result of INFO.
    """
    version = str(info["redis_version"])
    observation, remedy = f"{address}, {version}", ""
    if info["redis_mode"] == "sentinel":
        observation = f"{address} is a Sentinel"
        remedy = (
            "set SEGMENTQL_REDIS_URL to redis+sentinel://:PASSWORD@HOST,HOST,HOST/MASTER-NAME/0"
        )
    elif info["redis_mode"] == "cluster":
        observation = f"{address} is a node of a Redis Cluster, which is not supported"
        remedy = (
            "use one Redis, or one Redis with replicas and Sentinel: see docs/operations/redis.md"
        )
    elif info["role"] != "master":
        observation = f"{address} is a replica, which accepts no writes"
        remedy = "set SEGMENTQL_REDIS_URL to the master, or to its Sentinels"
    elif tuple(map(int, version.split(".")[:2])) < MIN_REDIS_VERSION:
        remedy = "upgrade to 6.0 or later"
    return Finding("Redis", Verdict.FAILED if remedy else Verdict.OK, observation, remedy)


def _memory(policy: str) -> Finding:
    if policy == NO_EVICTION:
        return Finding("Redis' memory", Verdict.OK, "nothing is evicted")
    return Finding(
        "Redis' memory",
        Verdict.WARNING,
        f"maxmemory-policy is {policy}, so jobs may be evicted",
        f"run CONFIG SET maxmemory-policy {NO_EVICTION}, and set it in the configuration of Redis",
    )


def _redis_problem(target: RedisTarget, error: Exception) -> Finding:
    address, has_password = target.address, target.password is not None
    observation = str(error)
    remedy = "check that it runs at this address. Until then, jobs are delayed but not lost"
    if isinstance(error, MasterNotFoundError):
        observation = "no Sentinel responds that knows a reachable master of this name"
        remedy = (
            "check the addresses and the credentials of the Sentinels, and the name of the master."
            " Until then, jobs are delayed but not lost"
        )
    elif isinstance(error, AuthenticationError):  # also if no password was sent
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
