"""How many requests a caller may send in a second, over all processes: token buckets in Redis.

No request waits for Redis. A process takes tokens in blocks of a twentieth of a second's, fetches
the next one on a thread when half of the last is used, and goes into debt meanwhile, which the next
fetch pays. So each process may let through a block and a debt beyond the rate, once, and no more
until the bucket had tokens again: a tenth of a second's worth, or `MIN_DEBT` where that is more.

With Redis away, or slow, this fails open: each process counts for itself, at the full rate. Reads
must not go out of service with Redis, and a caller then has the rate once a process, no more.
"""

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog
from redis import Redis
from redis.exceptions import RedisError

from segmentql import metrics

log = structlog.get_logger(__name__)

BLOCKS_A_SECOND: Final = 20
MIN_DEBT: Final = 50
"""Requests that may come at once before Redis has answered, though no more than the rate."""

LEFT_OVER_SECONDS: Final = 1.0
"""Tokens not used by then are no more: the caller may be somewhere else."""

SLOW_SECONDS: Final = 0.05
"""A fetch that takes longer counts as Redis being away, until it comes."""

FETCH_SECONDS: Final = 0.3
"""After so long a fetch is given up."""

PROBE_SECONDS: Final = 1.0
"""How often Redis is tried again while it is away."""

KEPT_MILLISECONDS: Final = 2_000
"""A bucket that nobody took from for so long is full, which is what a missing one counts as."""

MAX_CALLERS: Final = 10_000
"""Counted at a time; with more, those who have not asked of late are forgotten."""

FETCHERS: Final = 2
PREFIX: Final = "segmentql:rate:"

_TAKE: Final = """
local rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = rate
if held[1] then
  local passed = math.max(0, now - tonumber(held[2]))
  tokens = math.min(rate, tonumber(held[1]) + passed * rate / 1000000)
end
local granted = math.min(wanted, math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens - granted),
  'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return granted
"""


@dataclass(slots=True)
class _Caller:
    """What this process holds of one caller."""

    tokens: float
    """Tokens; below 0: a debt."""
    used_at: float
    is_exhausted: bool = False
    """Redis had fewer than were wanted: no debt is made."""
    fetching_since: float | None = None
    next_fetch: float = 0.0
    local_tokens: float = 0.0
    """Tokens of this process' own bucket, for when Redis is away, as of `local_refilled_at`."""
    local_refilled_at: float = -math.inf


class RateLimiter:
    """The rates of one process' callers; used on one event loop.

    `per_second`: for each caller; 0: everybody may always.
    """

    def __init__(self, url: str, *, per_second: int) -> None:
        self.per_second = per_second
        self._block = max(1, per_second // BLOCKS_A_SECOND)
        self._debt = min(per_second, max(self._block, MIN_DEBT))
        self._redis = Redis.from_url(
            url, socket_timeout=FETCH_SECONDS, socket_connect_timeout=FETCH_SECONDS, retry=None
        )
        self._script = self._redis.register_script(_TAKE)
        # Threads: redis-py's asyncio client loses cancellations, and so may miss its time-outs.
        self._threads = ThreadPoolExecutor(FETCHERS, thread_name_prefix="rates")
        self._callers: dict[str, _Caller] = {}
        self._fetches: set[asyncio.Future[int]] = set()
        self._is_away = False
        self._next_probe = 0.0

    def close(self) -> None:
        """Let go of the threads and the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def try_acquire(self, caller: str) -> bool:
        """Whether the caller, by any id of yours, may send one more request now."""
        if not self.per_second:
            return True
        now = time.monotonic()
        held = self._callers.get(caller) or self._add_caller(caller, now)
        if held.tokens > 0 and now - held.used_at > LEFT_OVER_SECONDS:
            held.tokens = 0
        self._fetch_if_needed(caller, held, now)
        slow = held.fetching_since is not None and now - held.fetching_since > SLOW_SECONDS
        if self._is_away or slow:
            return self._try_acquire_locally(held, now)
        lowest = 0 if held.is_exhausted else -self._debt
        if held.tokens <= lowest:
            return False
        held.tokens -= 1
        return True

    def _add_caller(self, caller: str, now: float) -> _Caller:
        if len(self._callers) >= MAX_CALLERS:
            self._callers = {
                name: held
                for name, held in self._callers.items()
                if held.fetching_since is not None or now - held.used_at <= LEFT_OVER_SECONDS
            }
        held = self._callers[caller] = _Caller(tokens=0, used_at=now)
        return held

    def _try_acquire_locally(self, held: _Caller, now: float) -> bool:
        passed = now - held.local_refilled_at
        held.local_tokens = min(self.per_second, held.local_tokens + passed * self.per_second)
        held.local_refilled_at = now
        if held.local_tokens < 1:
            return False
        held.local_tokens -= 1
        return True

    def _fetch_if_needed(self, caller: str, held: _Caller, now: float) -> None:
        if held.tokens > self._block / 2 or held.fetching_since is not None:
            return
        if now < (self._next_probe if self._is_away else held.next_fetch):
            return
        if self._is_away:
            self._next_probe = now + PROBE_SECONDS
        wanted = self._block + max(0, -int(held.tokens))
        held.fetching_since = now
        fetch = asyncio.get_running_loop().run_in_executor(
            self._threads, self._fetch, caller, wanted
        )
        self._fetches.add(fetch)
        fetch.add_done_callback(lambda done: self._fetched(held, wanted, done))

    def _fetch(self, caller: str, wanted: int) -> int:
        granted = self._script(
            keys=[PREFIX + caller], args=[self.per_second, wanted, KEPT_MILLISECONDS]
        )
        return int(granted)

    def _fetched(self, held: _Caller, wanted: int, done: "asyncio.Future[int]") -> None:
        self._fetches.discard(done)
        now = time.monotonic()
        held.fetching_since = None
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            if not isinstance(error, RedisError | OSError):
                log.error("rate_not_fetched", exc_info=error)
            held.next_fetch = now + PROBE_SECONDS
            self._next_probe = now + PROBE_SECONDS
            if not self._is_away:
                self._is_away = True
                metrics.RATE_LIMITER_OUTAGES.inc()
                log.warning("rates_not_shared", reason=type(error).__name__)
            return
        if self._is_away:
            self._is_away = False
            log.info("rates_shared_again")
        granted = done.result()
        held.tokens += granted
        held.used_at = now
        held.is_exhausted = granted < wanted
        if held.is_exhausted:
            held.next_fetch = now + 1 / BLOCKS_A_SECOND
