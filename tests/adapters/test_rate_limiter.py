"""The rate limiter is exact over all processes and never waits."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
from redis import Redis

from segmentql import metrics
from segmentql.adapters import rate_limiter as module
from segmentql.adapters.rate_limiter import (
    BLOCKS_PER_SECOND,
    MAX_BATCH,
    MIN_DEBT,
    PREFIX,
    RateLimiter,
)
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Sql, suspended, until

RATE = 200
BLOCK = RATE // BLOCKS_PER_SECOND
callers = (f"caller{number}" for number in itertools.count())


@pytest.fixture
async def make_limiter(settings: Settings, sql: Sql) -> AsyncIterator[Callable[[], RateLimiter]]:
    """Return a function that creates the limiter of one process; `sql` empties Redis."""
    limiters: list[RateLimiter] = []

    def make() -> RateLimiter:
        limiters.append(RateLimiter(settings.redis_url, per_second=RATE))
        return limiters[-1]

    yield make
    for rate_limiter in limiters:
        rate_limiter.close()


class Acquired(NamedTuple):
    tokens: int
    attempts: int
    seconds: float

    def without_withheld_tokens(self) -> float:
        """Return the least tokens if no token is withheld. A busy machine makes fewer attempts."""
        return min(RATE * self.seconds, self.attempts)


async def acquire_repeatedly(
    rate_limiter: list[RateLimiter], caller: str, seconds: float
) -> Acquired:
    """Acquire as often as possible for `seconds`, alternating between limiters."""
    began = time.monotonic()
    acquired = attempts = 0
    while time.monotonic() - began < seconds:
        acquired += sum(limiter.try_acquire(caller) for limiter in rate_limiter)
        attempts += len(rate_limiter)
        await asyncio.sleep(0.0005)
    return Acquired(acquired, attempts, time.monotonic() - began)


def outages() -> float:
    (family,) = metrics.RATE_LIMITER_OUTAGES.collect()
    return next(sample.value for sample in family.samples if sample.name.endswith("_total"))


async def test_first_request_of_a_caller_is_accepted(
    make_limiter: Callable[[], RateLimiter],
) -> None:
    rate_limiter = make_limiter()
    assert [rate_limiter.try_acquire(next(callers)) for _ in range(10)] == [True] * 10


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.slow
async def test_rate_of_a_caller_holds_over_all_processes(
    make_limiter: Callable[[], RateLimiter], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow fetch would switch to the local bucket, which adds tokens."""
    monkeypatch.setattr(module, "SLOW_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(module, "FETCH_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    acquired = await acquire_repeatedly(
        [make_limiter() for _ in range(processes)], next(callers), 1.5
    )
    # The limit is a full bucket, the tokens added in the meantime, and two blocks per process.
    assert acquired.tokens <= RATE + RATE * acquired.seconds + 2 * BLOCK * processes
    assert acquired.tokens >= acquired.without_withheld_tokens()


@pytest.mark.slow
async def test_callers_have_separate_rates(make_limiter: Callable[[], RateLimiter]) -> None:
    rate_limiter, fast_caller, slow_caller = make_limiter(), next(callers), next(callers)
    await acquire_repeatedly([rate_limiter], fast_caller, 1.2)
    assert not all(rate_limiter.try_acquire(fast_caller) for _ in range(3 * RATE))
    assert rate_limiter.try_acquire(slow_caller)


async def test_callers_of_one_iteration_share_commands(
    make_limiter: Callable[[], RateLimiter], settings: Settings
) -> None:
    rate_limiter = make_limiter()
    with Redis.from_url(settings.redis_url) as client:

        def commands() -> int:
            return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

        async def acquire(names: list[str]) -> None:
            async def are_fetched() -> bool:
                return bool(client.exists(*(PREFIX + name for name in names)) == len(names))

            assert all(map(rate_limiter.try_acquire, names))
            await until(are_fetched)

        await acquire([next(callers)])  # the script is loaded
        before = commands()
        await acquire([next(callers) for _ in range(MAX_BATCH)])
        assert commands() == before + 1
        await acquire([next(callers) for _ in range(2 * MAX_BATCH + 1)])
        assert commands() == before + 4


async def test_callers_of_one_command_have_separate_buckets(
    make_limiter: Callable[[], RateLimiter], settings: Settings
) -> None:
    rate_limiter, exhausted, full = make_limiter(), next(callers), next(callers)
    with Redis.from_url(settings.redis_url, decode_responses=True) as client:
        future = 10**18  # microseconds, so that Redis adds no tokens
        client.hset(PREFIX + exhausted, mapping={"tokens": "0", "at": str(future)})
        assert rate_limiter.try_acquire(exhausted)
        assert rate_limiter.try_acquire(full)

        async def is_fetched() -> bool:
            return bool(client.exists(PREFIX + full))

        async def is_rejected() -> bool:
            return not rate_limiter.try_acquire(exhausted)

        await until(is_fetched)
        await until(is_rejected)
        assert float(client.hget(PREFIX + full, "tokens")) == RATE - BLOCK
    assert [rate_limiter.try_acquire(full) for _ in range(MIN_DEBT)] == [True] * MIN_DEBT


@pytest.mark.slow
async def test_rejected_caller_is_accepted_again_soon(
    make_limiter: Callable[[], RateLimiter],
) -> None:
    rate_limiter, caller = make_limiter(), next(callers)
    await acquire_repeatedly([rate_limiter], caller, 1.2)
    assert not all(rate_limiter.try_acquire(caller) for _ in range(3 * RATE))

    async def is_accepted() -> bool:
        return rate_limiter.try_acquire(caller)

    await until(is_accepted)


async def test_rate_of_zero_accepts_every_request(settings: Settings) -> None:
    rate_limiter = RateLimiter(settings.redis_url, per_second=0)
    assert all(rate_limiter.try_acquire("anybody") for _ in range(10_000))
    rate_limiter.close()


@pytest.mark.slow
async def test_lost_redis_data_does_no_harm(
    make_limiter: Callable[[], RateLimiter], settings: Settings
) -> None:
    rate_limiter, caller = make_limiter(), next(callers)
    client = Redis.from_url(settings.redis_url)
    before = outages()
    await acquire_repeatedly([rate_limiter], caller, 0.5)
    assert 0 < client.pttl(PREFIX + caller) <= 2000
    client.flushall()
    client.script_flush()
    acquired = await acquire_repeatedly([rate_limiter], caller, 0.5)
    assert acquired.tokens > BLOCK
    assert outages() == before
    client.close()


@pytest.mark.slow
async def test_without_redis_each_process_limits_alone(
    make_limiter: Callable[[], RateLimiter], servers: LocalServers
) -> None:
    rate_limiter, caller = make_limiter(), next(callers)
    assert rate_limiter.try_acquire(caller)

    async def uses_redis() -> bool:
        if rate_limiter._is_redis_down:
            rate_limiter.try_acquire(caller)
        return not (rate_limiter._is_redis_down or rate_limiter._commands or rate_limiter._waiting)

    await until(uses_redis)
    before = outages()
    await servers.redis.kill()
    try:
        acquired = await acquire_repeatedly([rate_limiter], caller, 1.5)
        assert acquired.tokens >= acquired.without_withheld_tokens()
        assert acquired.tokens <= 2 * BLOCK + RATE + RATE * acquired.seconds
        assert outages() == before + 1
    finally:
        await servers.redis.start()
    await until(uses_redis)


@pytest.mark.slow
async def test_requests_do_not_wait_for_hanging_redis(
    make_limiter: Callable[[], RateLimiter], servers: LocalServers
) -> None:
    rate_limiter, caller = make_limiter(), next(callers)
    with suspended(servers.redis):
        acquired = 0
        started = time.monotonic()
        # A second is longer than several timeouts of Redis.
        while (seconds := time.monotonic() - started) < 1 or acquired < RATE:
            acquired += rate_limiter.try_acquire(caller)
            # If each request waited for the timeout, 0.3 s, they would take twice as long.
            assert seconds < 0.15 * RATE
            await asyncio.sleep(0.0005)
