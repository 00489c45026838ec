"""What is asked of Redis to see how jobs do: whether it answers, and how long the queues are."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from segmentql.adapters.jobs import QUEUES
from segmentql.errors import Unavailable

T = TypeVar("T")

STATES: Final = ("ready", "delayed", "dead")


class QueueStats:
    """Asks for `seconds` at most, once: whoever probes has little patience and comes again."""

    def __init__(self, redis_url: str, *, seconds: float) -> None:
        self._redis = Redis.from_url(
            redis_url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None
        )

    def close(self) -> None:
        self._redis.close()

    async def ping(self) -> bool:
        """Whether Redis answers; never raises."""
        try:
            await _call(self._redis.ping)
        except Unavailable:
            return False
        return True

    async def lengths(self) -> Mapping[tuple[str, str], int]:
        """How many messages each queue has in each state of `STATES`.

        Raises:
            Unavailable: Redis does not answer.
        """
        lengths = await _call(self._lengths)
        places = [(queue, state) for queue in QUEUES for state in STATES]
        return dict(zip(places, lengths, strict=True))

    def _lengths(self) -> list[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for queue in QUEUES:  # as Dramatiq's broker names them
            pipeline.llen(f"dramatiq:{queue}")
            pipeline.llen(f"dramatiq:{queue}.DQ")
            pipeline.zcard(f"dramatiq:{queue}.XQ")
        return [int(length) for length in pipeline.execute()]


async def _call(question: Callable[[], T]) -> T:
    try:
        # In a thread: redis-py's asyncio client loses cancellations, and so may miss its time-outs.
        return await asyncio.to_thread(question)
    except (RedisError, OSError) as error:
        raise Unavailable from error
