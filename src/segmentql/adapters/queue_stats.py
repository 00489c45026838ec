"""Statistics of the job queues in Redis."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from redis.exceptions import RedisError

from segmentql.adapters.redis_client import redis_client
from segmentql.errors import Unavailable

T = TypeVar("T")

STATES: Final = ("ready", "delayed", "dead")


class QueueStats:
    """A Redis client for probes and metrics: one attempt with a short timeout, without retries.

    Args:
        seconds: the timeout of a connection attempt and of a command.
    """

    def __init__(self, redis_url: str, *, seconds: float) -> None:
        self._redis = redis_client(redis_url, seconds=seconds)

    def close(self) -> None:
        self._redis.close()

    async def ping(self) -> bool:
        """Return whether Redis responds. Never raises."""
        try:
            await _run_in_thread(self._redis.ping)
        except Unavailable:
            return False
        return True

    async def lengths(self, queues: Sequence[str]) -> Mapping[tuple[str, str], int]:
        """Return the number of messages by queue and state (one of `STATES`).

        Raises:
            Unavailable: Redis does not respond.
        """
        lengths = await _run_in_thread(lambda: self._lengths(queues))
        keys = [(queue, state) for queue in queues for state in STATES]
        return dict(zip(keys, lengths, strict=True))

    def _lengths(self, queues: Sequence[str]) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for queue in queues:  # the key names of Dramatiq's broker
            pipeline.llen(f"dramatiq:{queue}")
            pipeline.llen(f"dramatiq:{queue}.DQ")
            pipeline.zcard(f"dramatiq:{queue}.XQ")
        return [int(length) for length in pipeline.execute()]


async def _run_in_thread(command: Callable[[], T]) -> T:
    try:
        # redis-py's asyncio client can lose cancellations, and so exceed its timeouts.
        return await asyncio.to_thread(command)
    except (RedisError, OSError) as error:
        raise Unavailable from error
