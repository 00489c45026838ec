"""How many requests a caller may send in a second: exact over all processes, and never waiting."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import pytest
from redis import Redis

from segmentql import metrics
from segmentql.adapters.rate_limiter import BLOCKS_PER_SECOND, PREFIX, RateLimiter
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Sql, suspended, until

RATE = 200
BLOCK = RATE // BLOCKS_PER_SECOND
callers = (f"caller{number}" for number in itertools.count())


@pytest.fixture
async def make_rates(settings: Settings, sql: Sql) -> AsyncIterator[Callable[[], RateLimiter]]:
    """Makes what one process has; `sql` empties Redis."""
    made: list[RateLimiter] = []

    def make() -> RateLimiter:
        made.append(RateLimiter(settings.redis_url, per_second=RATE))
        return made[-1]

    yield make
    for rate_limiter in made:
        rate_limiter.close()


async def press(rate_limiter: list[RateLimiter], caller: str, seconds: float) -> tuple[int, float]:
    """Take all that can be had for so long, in turns; how many it was, in how long really."""
    began = time.monotonic()
    taken = 0
    while time.monotonic() - began < seconds:
        taken += sum(one.try_acquire(caller) for one in rate_limiter)
        await asyncio.sleep(0.0005)
    return taken, time.monotonic() - began


def outages() -> float:
    (family,) = metrics.RATE_LIMITER_OUTAGES.collect()
    return next(sample.value for sample in family.samples if sample.name.endswith("_total"))


async def test_the_first_request_of_a_caller_is_let_through_at_once(
    make_rates: Callable[[], RateLimiter],
) -> None:
    rate_limiter = make_rates()
    assert [rate_limiter.try_acquire(next(callers)) for _ in range(10)] == [True] * 10


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.slow
async def test_a_caller_has_the_rate_over_all_processes(
    make_rates: Callable[[], RateLimiter], processes: int
) -> None:
    taken, seconds = await press([make_rates() for _ in range(processes)], next(callers), 1.5)
    # A full bucket, what is added meanwhile, and two blocks a process beyond.
    assert taken <= RATE + RATE * seconds + 2 * BLOCK * processes
    assert taken >= RATE * seconds  # and nobody is kept from what is theirs


@pytest.mark.slow
async def test_callers_have_a_rate_each(make_rates: Callable[[], RateLimiter]) -> None:
    rate_limiter, greedy, modest = make_rates(), next(callers), next(callers)
    await press([rate_limiter], greedy, 1.2)
    assert not all(rate_limiter.try_acquire(greedy) for _ in range(3 * RATE))
    assert rate_limiter.try_acquire(modest)


@pytest.mark.slow
async def test_a_caller_who_was_refused_is_let_through_soon(
    make_rates: Callable[[], RateLimiter],
) -> None:
    rate_limiter, caller = make_rates(), next(callers)
    await press([rate_limiter], caller, 1.2)
    assert not all(rate_limiter.try_acquire(caller) for _ in range(3 * RATE))

    async def is_let_through() -> bool:
        return rate_limiter.try_acquire(caller)

    await until(is_let_through)


async def test_no_rate_lets_everybody_through(settings: Settings) -> None:
    rate_limiter = RateLimiter(settings.redis_url, per_second=0)
    assert all(rate_limiter.try_acquire("anybody") for _ in range(10_000))
    rate_limiter.close()


@pytest.mark.slow
async def test_what_redis_forgets_does_no_harm(
    make_rates: Callable[[], RateLimiter], settings: Settings
) -> None:
    rate_limiter, caller = make_rates(), next(callers)
    client = Redis.from_url(settings.redis_url)
    before = outages()
    await press([rate_limiter], caller, 0.5)
    assert 0 < client.pttl(PREFIX + caller) <= 2000
    client.flushall()
    client.script_flush()
    taken, _ = await press([rate_limiter], caller, 0.5)
    assert taken > BLOCK
    assert outages() == before
    client.close()


@pytest.mark.slow
async def test_without_redis_each_process_counts_for_itself_and_nobody_waits(
    make_rates: Callable[[], RateLimiter], servers: LocalServers
) -> None:
    rate_limiter, caller = make_rates(), next(callers)
    assert rate_limiter.try_acquire(caller)
    before = outages()
    await servers.redis.kill()
    try:
        taken, seconds = await press([rate_limiter], caller, 1.5)
        assert RATE * seconds <= taken <= 2 * BLOCK + RATE + RATE * seconds
        assert outages() == before + 1
    finally:
        await servers.redis.start()

    async def counts_in_redis_again() -> bool:
        rate_limiter.try_acquire(caller)
        return not rate_limiter._is_redis_down

    await until(counts_in_redis_again)


@pytest.mark.slow
async def test_while_redis_hangs_nobody_waits(
    make_rates: Callable[[], RateLimiter], servers: LocalServers
) -> None:
    rate_limiter, caller = make_rates(), next(callers)
    with suspended(servers.redis):
        longest = 0.0
        taken = 0
        began = time.monotonic()
        while time.monotonic() - began < 1:
            asked = time.monotonic()
            taken += rate_limiter.try_acquire(caller)
            longest = max(longest, time.monotonic() - asked)
            await asyncio.sleep(0.0005)
        assert taken >= RATE  # at the full rate
        assert longest < 0.2  # Redis is given 0.3 s, and nobody waits for that
