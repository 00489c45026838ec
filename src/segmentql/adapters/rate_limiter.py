"""A rate limiter for all processes: one token bucket per caller in Redis.

No request waits for Redis. Each process takes tokens from the bucket in blocks of a twentieth of
the rate. It fetches the next block in a thread when half of the last one is used. Until the block
arrives, the process goes into debt, which the next fetch pays. So each process can exceed the rate
by a block and a debt once, until the bucket has tokens again: a tenth of the rate, or a block and
`MIN_DEBT` if that is more. One command fetches the blocks of all callers that need one at the same
time, because a command takes longer than executing a small query.

If Redis is unavailable or slow, each process counts for itself at the full rate, because reads must
not depend on Redis. A caller can then use the rate once per process.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import structlog
from redis.exceptions import RedisError

from segmentql import metrics
from segmentql.adapters.redis_client import redis_client

log = structlog.get_logger(__name__)

BLOCKS_PER_SECOND: Final = 20
MIN_DEBT: Final = 50
"""The minimum burst in requests that is allowed before Redis responds, up to the rate."""

TOKEN_TTL_SECONDS: Final = 1.0
"""How long a process may use fetched tokens. Later the caller may use another process."""

SLOW_SECONDS: Final = 0.05
"""If a fetch takes longer, Redis counts as unavailable until the fetch completes."""

FETCH_TIMEOUT_SECONDS: Final = 0.3

RETRY_SECONDS: Final = 1.0
"""The interval between attempts while Redis is unavailable."""

BUCKET_TTL_MILLISECONDS: Final = 2_000
"""The lifetime of an unused bucket in Redis. It is full by then, like a missing bucket."""

MAX_CALLERS: Final = 10_000
"""The maximum number of callers in memory, above which idle callers are removed."""

FETCH_THREADS: Final = 2
"""The maximum number of concurrent commands. Further fetches wait and join a larger batch."""

MAX_BATCH: Final = 100
"""The maximum number of callers in one command, which blocks Redis for less than a millisecond."""

PREFIX: Final = "segmentql:rate:"

_TAKE: Final = """
local rate = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local granted = {}
for number, key in ipairs(KEYS) do
  local bucket = redis.call('HMGET', key, 'tokens', 'at')
  local tokens = rate
  if bucket[1] then
    local elapsed = math.max(0, now - tonumber(bucket[2]))
    tokens = math.min(rate, tonumber(bucket[1]) + elapsed * rate / 1000000)
  end
  granted[number] = math.min(tonumber(ARGV[number + 2]), math.floor(tokens))
  redis.call('HSET', key, 'tokens', string.format('%.6f', tokens - granted[number]),
    'at', string.format('%.0f', now))
  redis.call('PEXPIRE', key, ARGV[2])
end
return granted
"""


@dataclass(slots=True)
class _LocalBucket:
    """The tokens of one caller in this process."""

    tokens: float
    """The remaining tokens. A negative number is a debt."""
    last_fetch_at: float
    is_exhausted: bool = False
    """Whether Redis granted fewer tokens than requested. If so, no debt is allowed."""
    fetch_started_at: float | None = None
    next_fetch_at: float = 0.0
    local_tokens: float = 0.0
    """Tokens of the local bucket as of `local_refilled_at`, used while Redis is unavailable."""
    local_refilled_at: float = -math.inf


class _Fetch(NamedTuple):
    """A fetch of tokens for one caller."""

    caller: str
    bucket: _LocalBucket
    requested: int


class RateLimiter:
    """The rate limiter of one process, for use on one event loop.

    Args:
        per_second: the number of requests per second that each caller may send. 0 means no limit.
    """

    def __init__(self, url: str, *, per_second: int) -> None:
        self.per_second = per_second
        self._block = max(1, per_second // BLOCKS_PER_SECOND)
        self._debt = min(per_second, max(self._block, MIN_DEBT))
        self._redis = redis_client(url, seconds=FETCH_TIMEOUT_SECONDS)
        self._script = self._redis.register_script(_TAKE)
        # Threads, because redis-py's asyncio client can lose cancellations and exceed its timeouts.
        self._threads = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="rates")
        self._buckets: dict[str, _LocalBucket] = {}
        self._waiting: deque[_Fetch] = deque()
        self._commands: set[asyncio.Future[Sequence[int]]] = set()
        self._is_scheduled = False
        self._is_redis_down = False
        self._next_retry_at = 0.0

    def close(self) -> None:
        """Close the threads and the connections."""
        self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def try_acquire(self, caller: str) -> bool:
        """Take a token for a request; return whether the caller may send it.

        Args:
            caller: any string that identifies the caller.
        """
        if not self.per_second:
            return True
        now = time.monotonic()
        bucket = self._buckets.get(caller) or self._add_bucket(caller, now)
        if bucket.tokens > 0 and now - bucket.last_fetch_at > TOKEN_TTL_SECONDS:
            bucket.tokens = 0
        self._fetch_if_needed(caller, bucket, now)
        is_slow = (
            bucket.fetch_started_at is not None and now - bucket.fetch_started_at > SLOW_SECONDS
        )
        if self._is_redis_down or is_slow:
            return self._try_acquire_locally(bucket, now)
        minimum = 0 if bucket.is_exhausted else -self._debt
        if bucket.tokens <= minimum:
            return False
        bucket.tokens -= 1
        return True

    def _add_bucket(self, caller: str, now: float) -> _LocalBucket:
        if len(self._buckets) >= MAX_CALLERS:
            self._buckets = {
                name: bucket
                for name, bucket in self._buckets.items()
                if bucket.fetch_started_at is not None
                or now - bucket.last_fetch_at <= TOKEN_TTL_SECONDS
            }
        bucket = self._buckets[caller] = _LocalBucket(tokens=0, last_fetch_at=now)
        return bucket

    def _try_acquire_locally(self, bucket: _LocalBucket, now: float) -> bool:
        elapsed = now - bucket.local_refilled_at
        bucket.local_tokens = min(self.per_second, bucket.local_tokens + elapsed * self.per_second)
        bucket.local_refilled_at = now
        if bucket.local_tokens < 1:
            return False
        bucket.local_tokens -= 1
        return True

    def _fetch_if_needed(self, caller: str, bucket: _LocalBucket, now: float) -> None:
        if bucket.tokens > self._block / 2 or bucket.fetch_started_at is not None:
            return
        if now < (self._next_retry_at if self._is_redis_down else bucket.next_fetch_at):
            return
        if self._is_redis_down:
            self._next_retry_at = now + RETRY_SECONDS
        requested = self._block + max(0, -int(bucket.tokens))
        bucket.fetch_started_at = now
        self._waiting.append(_Fetch(caller, bucket, requested))
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._send_waiting)

    def _send_waiting(self) -> None:
        """Fetch the tokens of the waiting callers in batches, if there is capacity."""
        self._is_scheduled = False
        while self._waiting and len(self._commands) < FETCH_THREADS:
            size = min(len(self._waiting), MAX_BATCH)
            batch = [self._waiting.popleft() for _ in range(size)]
            command = asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, batch)
            self._commands.add(command)
            command.add_done_callback(partial(self._on_fetched, batch))

    def _fetch(self, batch: Sequence[_Fetch]) -> Sequence[int]:
        """Return the number of tokens that Redis grants to each caller."""
        granted: Sequence[int] = self._script(
            keys=[PREFIX + fetch.caller for fetch in batch],
            args=[
                self.per_second,
                BUCKET_TTL_MILLISECONDS,
                *(fetch.requested for fetch in batch),
            ],
        )
        return granted

    def _on_fetched(self, batch: Sequence[_Fetch], done: "asyncio.Future[Sequence[int]]") -> None:
        self._commands.discard(done)
        now = time.monotonic()
        for fetch in batch:
            fetch.bucket.fetch_started_at = None
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._add_tokens(batch, done.result(), now)
        else:
            self._on_failed(batch, error, now)
        self._send_waiting()

    def _add_tokens(self, batch: Sequence[_Fetch], granted: Sequence[int], now: float) -> None:
        if self._is_redis_down:
            self._is_redis_down = False
            log.info("rates_shared_again")
        for (_, bucket, requested), tokens in zip(batch, granted, strict=True):
            bucket.tokens += tokens
            bucket.last_fetch_at = now
            bucket.is_exhausted = tokens < requested
            if bucket.is_exhausted:
                bucket.next_fetch_at = now + 1 / BLOCKS_PER_SECOND

    def _on_failed(self, batch: Sequence[_Fetch], error: BaseException, now: float) -> None:
        if not isinstance(error, RedisError | OSError):
            log.error("rate_not_fetched", exc_info=error)
        for fetch in batch:
            fetch.bucket.next_fetch_at = now + RETRY_SECONDS
        self._next_retry_at = now + RETRY_SECONDS
        if not self._is_redis_down:
            self._is_redis_down = True
            metrics.RATE_LIMITER_OUTAGES.inc()
            log.warning("rates_not_shared", reason=type(error).__name__)
