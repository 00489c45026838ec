"""Dramatiq's Redis broker with consumers that wait for notifications instead of polling.

The script that enqueues a message also publishes the queue's name on a channel. In each worker, a
thread subscribes to the channel and wakes the consumer of that queue. Redis does not store these
wake-ups, so one can be lost. The consumer's slow poll then finds the message.
"""

import contextlib
import heapq
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import dramatiq.worker
import structlog
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer, _scripts
from dramatiq.common import current_millis
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from segmentql.adapters.redis_client import redis_client

log = structlog.get_logger(__name__)

REDIS_TIMEOUT_SECONDS: Final = 2
"""The timeout of one Redis command."""

REDELIVERY_CHANCE: Final = 1_000_000
"""Of a million: every fetch requeues the messages of workers that died more than 60 s ago."""

SLOW_POLL_SECONDS: Final = 5
"""The poll interval of an idle consumer that receives wake-ups. Each poll is also the worker's
heartbeat, so the interval must be well below the 60 s after which a worker counts as dead."""

FALLBACK_POLL_SECONDS: Final = 0.1
"""The poll interval of an idle consumer while the process is not subscribed."""

PING_SECONDS: Final = 5
"""If no wake-up arrives for this long, a PING checks the subscription."""

RESUBSCRIBE_SECONDS: Final = 1

CHANNEL: Final = "dramatiq:wake-ups"

# Appended to Dramatiq's script, whose variables it uses. `requeue` returns messages to a queue.
_PUBLISH: Final = b"""
if command == "enqueue" or command == "requeue" then
    redis.call("publish", namespace .. ":wake-ups", queue_name)
end
"""


class WorkQueue(queue.PriorityQueue[Any]):
    """Dramatiq's queue between consumers and worker threads, without polling.

    `get` ignores its timeout and waits for an item, until `close` is called.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_closed = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        if block:
            with self.not_empty:
                self.not_empty.wait_for(lambda: self._is_closed or self._qsize() > 0)
        return super().get(block, timeout)

    def close(self) -> None:
        """Make `get` respect its timeout, so that the waiting threads can end."""
        with self.not_empty:
            self._is_closed = True
            self.not_empty.notify_all()


class Wakeups(Middleware):
    """Receives wake-ups in a thread while a Dramatiq worker runs."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._events: dict[str, threading.Event] = {}
        self._is_subscribed = False
        self._stopping = threading.Event()

    def event(self, queue_name: str) -> threading.Event:
        """Return the event that is set when a message arrives in the queue."""
        return self._events.setdefault(queue_name, threading.Event())

    @property
    def poll_seconds(self) -> float:
        """The maximum time that an idle consumer waits for a wake-up."""
        return SLOW_POLL_SECONDS if self._is_subscribed else FALLBACK_POLL_SECONDS

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        worker.work_queue = WorkQueue()
        # A daemon thread, so that its blocking read does not delay the end of the worker.
        threading.Thread(target=self._run, name="wakeups", daemon=True).start()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        self._stopping.set()
        self._unsubscribed()
        if isinstance(worker.work_queue, WorkQueue):
            worker.work_queue.close()

    def _run(self) -> None:
        is_lost = False
        redis = redis_client(self._redis_url, seconds=REDIS_TIMEOUT_SECONDS)
        while not self._stopping.is_set():
            try:
                self._listen(redis)
            except (RedisError, OSError) as error:
                if self._is_subscribed or not is_lost:  # one line for each outage
                    log.warning("wakeups_lost", reason=str(error))
                is_lost = True
            except Exception:
                log.exception("wakeups_failed")
            self._unsubscribed()
            self._stopping.wait(RESUBSCRIBE_SECONDS)
        redis.close()

    def _listen(self, redis: Redis) -> None:
        """Wake consumers until the worker stops.

        Raises:
            RedisError: the connection was lost, or Redis exceeded `REDIS_TIMEOUT_SECONDS`.
        """
        with redis.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            expects_reply = True
            while not self._stopping.is_set():
                seconds = REDIS_TIMEOUT_SECONDS if expects_reply else PING_SECONDS
                message = channel.get_message(timeout=seconds)
                if message is None and expects_reply:
                    raise RedisTimeoutError("the subscription does not respond")
                expects_reply = message is None
                if message is None:
                    channel.ping()
                elif message["type"] == "message":
                    self.event(message["data"].decode()).set()
                elif message["type"] == "subscribe" and not self._stopping.is_set():
                    self._is_subscribed = True
                    self._wake_all()  # for messages that arrived earlier

    def _unsubscribed(self) -> None:
        self._is_subscribed = False
        self._wake_all()  # so that they apply the shorter poll interval

    def _wake_all(self) -> None:
        for event in list(self._events.values()):
            event.set()


class _WaitingConsumer(_RedisConsumer):
    """A consumer that fetches when it is woken, when a delayed message is due, and at the poll."""

    def __init__(self, broker: "WaitingBroker", queue_name: str, prefetch: int) -> None:
        # With a timeout of 0 Dramatiq's `__next__` does not sleep.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._wakeups = broker.wakeups
        self._woken = broker.wakeups.event(queue_name)
        self._etas: list[float] = []
        """A heap of the due times of delayed messages, in milliseconds.

        The messages are in Dramatiq's consumer thread, which checks them after each `__next__`.
        """

        self._returned_at = 0
        self._is_full = False
        """Whether `__next__` fetches nothing until a fetched message is done."""

    def __next__(self) -> MessageProxy | None:
        # Before the fetch, so that an event that is set after the fetch ends the wait at once.
        self._woken.clear()
        # In this order, because other threads finish a message and then read `_is_full`.
        self._is_full = True
        self._is_full = self.outstanding_message_count >= self.prefetch
        with _as_connection_error():
            message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        if message is None:
            self._wait()
        elif isinstance(eta := message.options.get("eta"), int | float):
            heapq.heappush(self._etas, eta)
        self._returned_at = current_millis()
        return message

    def ack(self, message: MessageProxy) -> None:
        try:
            with _as_connection_error():
                super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._wake_if_full()

    def nack(self, message: MessageProxy) -> None:
        try:
            with _as_connection_error():
                super().nack(message)  # type: ignore[no-untyped-call]
        finally:
            self._wake_if_full()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        # Any other error would end Dramatiq's consumer thread.
        with _as_connection_error():
            super().requeue(messages)  # type: ignore[no-untyped-call]

    def _wake_if_full(self) -> None:
        if self._is_full:
            self._woken.set()

    def _wait(self) -> None:
        # Messages that were due when `__next__` last returned are already in their queue.
        while self._etas and self._etas[0] <= self._returned_at:
            heapq.heappop(self._etas)
        seconds = self._wakeups.poll_seconds
        if self._etas:
            seconds = min(seconds, (self._etas[0] + 1 - current_millis()) / 1000)
        self._woken.wait(max(seconds, 0))


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    """Raise the error after which Dramatiq reconnects. It does not handle timeouts of Redis."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]


class WaitingBroker(RedisBroker):
    """A broker that connects at the first use and receives wake-ups only in a worker."""

    def __init__(self, redis_url: str, middleware: Sequence[Middleware]) -> None:
        redis = redis_client(redis_url, seconds=REDIS_TIMEOUT_SECONDS)
        self.wakeups = Wakeups(redis_url)
        super().__init__(  # type: ignore[no-untyped-call]
            client=redis,
            middleware=[self.wakeups, *middleware],
            maintenance_chance=REDELIVERY_CHANCE,
        )
        self.scripts["dispatch"] = redis.register_script(_scripts["dispatch"] + _PUBLISH)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        if queue_name in self.delay_queues:
            with _as_connection_error():
                self._requeue_fetched(queue_name)
        return _WaitingConsumer(self, queue_name, prefetch)

    def _requeue_fetched(self, queue_name: str) -> None:
        """Requeue the delayed messages that this process fetched before it lost the connection.

        Dramatiq forgets them when it reconnects, and Redis reserves them for this process.
        """
        fetched = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        if message_ids := self.client.smembers(fetched):
            self.do_requeue(queue_name, *message_ids)
