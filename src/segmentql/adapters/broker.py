"""The broker: Dramatiq's on Redis, except that its consumers wait for wake-ups and hardly poll.

The script that puts a message into a queue publishes the queue's name on a channel as well. In a
worker one thread is subscribed to the channel and wakes the consumer of that queue. A wake-up may
be lost, because it is not stored: the consumer's slow poll then finds the message.
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

log = structlog.get_logger(__name__)

REDIS_SECONDS: Final = 2
"""The timeout of one Redis command."""

REDELIVERY_CHANCE: Final = 1_000_000
"""Out of a million: look for messages of dead workers at every fetch (60 s after the death)."""

SLOW_POLL_SECONDS: Final = 5
"""The interval at which an idle consumer polls while it gets wake-ups. Each poll is also the
worker's heartbeat, which must be well below the 60 s after which a worker counts as dead."""

FALLBACK_POLL_SECONDS: Final = 0.1
"""The interval at which an idle consumer polls while the process is not subscribed."""

PING_SECONDS: Final = 5
"""After this long without a wake-up the subscription is checked with a PING."""

RESUBSCRIBE_SECONDS: Final = 1

CHANNEL: Final = "dramatiq:wake-ups"

# Appended to Dramatiq's script, whose variables it uses. `requeue` hands messages back.
_PUBLISH: Final = b"""
if command == "enqueue" or command == "requeue" then
    redis.call("publish", namespace .. ":wake-ups", queue_name)
end
"""


class WorkQueue(queue.PriorityQueue[Any]):
    """Dramatiq's queue between consumers and worker threads, for threads that do not poll.

    `get` returns when there is an item, without regard to its timeout, until `close` is called.
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
        """Let the timeouts of `get` count, so that the waiting threads can end."""
        with self.not_empty:
            self._is_closed = True
            self.not_empty.notify_all()


class Wakeups(Middleware):
    """Listens for wake-ups in a thread, from the start of a Dramatiq worker to its stop."""

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
        """How long an idle consumer may wait for a wake-up."""
        return SLOW_POLL_SECONDS if self._is_subscribed else FALLBACK_POLL_SECONDS

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        worker.work_queue = WorkQueue()
        # A daemon: nothing waits for its blocking read when the worker stops.
        threading.Thread(target=self._run, name="wakeups", daemon=True).start()

    def before_worker_shutdown(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        self._stopping.set()
        self._unsubscribed()
        if isinstance(worker.work_queue, WorkQueue):
            worker.work_queue.close()

    def _run(self) -> None:
        is_lost = False
        redis = Redis.from_url(
            self._redis_url,
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
            retry=None,
        )
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
            RedisError: the connection was lost, or Redis did not answer within `REDIS_SECONDS`.
        """
        with redis.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(CHANNEL)
            expects_answer = True
            while not self._stopping.is_set():
                seconds = REDIS_SECONDS if expects_answer else PING_SECONDS
                message = channel.get_message(timeout=seconds)
                if message is None and expects_answer:
                    raise RedisTimeoutError("the subscription does not answer")
                expects_answer = message is None
                if message is None:
                    channel.ping()
                elif message["type"] == "message":
                    self.event(message["data"].decode()).set()
                elif message["type"] == "subscribe" and not self._stopping.is_set():
                    self._is_subscribed = True
                    self._wake_all()  # for messages from before

    def _unsubscribed(self) -> None:
        self._is_subscribed = False
        self._wake_all()  # they wait less from now on

    def _wake_all(self) -> None:
        for event in list(self._events.values()):
            event.set()


class _WaitingConsumer(_RedisConsumer):
    """Fetches messages when it is woken, when a delayed message is due, and at the slow poll."""

    def __init__(self, broker: "WaitingBroker", queue_name: str, prefetch: int) -> None:
        # With a timeout of 0 Dramatiq's `__next__` does not sleep.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._wakeups = broker.wakeups
        self._woken = broker.wakeups.event(queue_name)
        self._etas: list[float] = []
        """A heap of the moments, in milliseconds, at which delayed messages are due. The messages
        themselves wait in Dramatiq's consumer thread, which looks at them after each `__next__`."""
        self._returned_at = 0
        self._is_full = False
        """Whether `__next__` fetches nothing until a message that was fetched is done."""

    def __next__(self) -> MessageProxy | None:
        # Before the fetch: an event set after it ends the wait at once.
        self._woken.clear()
        # In this order, because other threads make room and then read `_is_full`.
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
            self._notice_room()

    def nack(self, message: MessageProxy) -> None:
        try:
            with _as_connection_error():
                super().nack(message)  # type: ignore[no-untyped-call]
        finally:
            self._notice_room()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        # Dramatiq's consumer thread would not survive another error here.
        with _as_connection_error():
            super().requeue(messages)  # type: ignore[no-untyped-call]

    def _notice_room(self) -> None:
        if self._is_full:
            self._woken.set()

    def _wait(self) -> None:
        # What was due when `__next__` last returned has been moved to its queue since.
        while self._etas and self._etas[0] <= self._returned_at:
            heapq.heappop(self._etas)
        seconds = self._wakeups.poll_seconds
        if self._etas:
            seconds = min(seconds, (self._etas[0] + 1 - current_millis()) / 1000)
        self._woken.wait(max(seconds, 0))


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    """Raise the error after which Dramatiq reconnects; it does not expect a timeout of Redis."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]


class WaitingBroker(RedisBroker):
    """A broker that connects when it is first used, and listens for wake-ups in a worker only."""

    def __init__(self, redis_url: str, middleware: Sequence[Middleware]) -> None:
        redis = Redis.from_url(
            redis_url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )
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
                self._hand_back(queue_name)
        return _WaitingConsumer(self, queue_name, prefetch)

    def _hand_back(self, queue_name: str) -> None:
        """Put back the delayed messages that this process had fetched before it lost Redis.

        Dramatiq forgets them when it reconnects, and Redis keeps them for this process alone.
        """
        fetched = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        if message_ids := self.client.smembers(fetched):
            self.do_requeue(queue_name, *message_ids)
