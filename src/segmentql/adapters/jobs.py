"""The job queue: job definitions, the publisher of messages, and the worker's middleware.

A message is only a hint that there is work. The work itself is stored in PostgreSQL, and the
scheduler finds it there if the message was lost. This has three consequences: callers do not wait
until a message is sent, no message is delayed by more than about a minute, and every actor is
idempotent, because it may run twice, concurrently, or without work.
"""

import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import dramatiq
import structlog
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import AsyncIO, Middleware, Retries, ShutdownNotifications, TimeLimit
from redis.exceptions import RedisError

from segmentql import metrics
from segmentql.adapters.broker import WaitingBroker
from segmentql.adapters.outages import outage_reason
from segmentql.tracing import setup
from segmentql.tracing.active import ActiveSpan, message_options, start_job

log = structlog.get_logger(__name__)

MAX_DELAY_SECONDS: Final = 60
"""The maximum delay of a message. The scheduler finds later work, because Dramatiq keeps delayed
messages in one list that is not sorted by their due time."""

MAX_UNSENT: Final = 1000
"""The maximum number of unsent messages. If Redis is slow, the scheduler recovers the others."""

CLOSE_SECONDS: Final = 2
"""How long unsent messages may delay the end of the process."""


@dataclass(frozen=True)
class Job:
    """A kind of work: the name of its actor, its queue, and the limits of one attempt."""

    name: str
    queue: str
    time_limit_seconds: float
    max_retries: int
    max_backoff_seconds: float = 60


@dataclass(frozen=True)
class Message:
    """A hint that there is work. `args` contains ids only."""

    job: Job
    args: tuple[int, ...] = ()
    delay_seconds: float = 0


@dataclass(frozen=True)
class JobActor:
    """The implementation of a job. `work(context, *args)` runs on the worker's event loop."""

    job: Job
    work: Callable[..., Awaitable[None]]


class JobPublisher:
    """Sends messages in its own thread, so that requests do not wait for Redis."""

    def __init__(self, redis_url: str) -> None:
        self._broker = WaitingBroker(redis_url, [])
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._unsent = threading.BoundedSemaphore(MAX_UNSENT)
        self._close_deadline = math.inf

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages in the background.

        A message that cannot be sent is counted and logged. The scheduler recovers its work.
        """
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        options = {"request_id": request_id} if request_id else {}
        options |= message_options()
        for message in messages:
            if self._unsent.acquire(blocking=False):
                self._thread.submit(self._send, message, options)
            else:
                metrics.MESSAGES_LOST.labels(message.job.name).inc()

    def _send(self, message: Message, options: Mapping[str, str]) -> None:
        try:
            if time.monotonic() > self._close_deadline:
                raise TimeoutError("the process is shutting down")
            self._broker.enqueue(
                dramatiq.Message(
                    queue_name=message.job.queue,
                    actor_name=message.job.name,
                    args=message.args,
                    kwargs={},
                    options=dict(options),
                ),
                delay=math.ceil(message.delay_seconds * 1000) or None,
            )
        except (RedisError, OSError) as error:
            metrics.MESSAGES_LOST.labels(message.job.name).inc()
            log.warning("message_not_sent", job=message.job.name, reason=str(error))
        finally:
            self._unsent.release()

    def close(self) -> None:
        """Send the unsent messages for up to `CLOSE_SECONDS`, then end the thread."""
        self._close_deadline = time.monotonic() + CLOSE_SECONDS
        self._thread.shutdown(wait=True)
        self._broker.close()
        self._broker.client.close()


class ActorMetrics(Middleware):
    """Counts the runs of actors and measures their duration."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started[message.message_id] = time.monotonic()
        metrics.ACTOR_STARTS.labels(message.actor_name).inc()
        if message.options.get("retries"):
            metrics.ACTOR_RETRIES.labels(message.actor_name).inc()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        seconds = time.monotonic() - self._started.pop(message.message_id, time.monotonic())
        outcome = "failed" if exception else "done"
        metrics.ACTOR_RUNS.labels(message.actor_name, outcome).inc()
        metrics.ACTOR_DURATION_SECONDS.labels(message.actor_name).observe(seconds)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started.pop(message.message_id, None)


class JobLogs(Middleware):
    """Logs each run of an actor, and adds the job and the request id to other lines of the run.

    Dramatiq's thread passes its context to the event loop, which runs the actor.
    """

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started[message.message_id] = time.monotonic()
        request_id = message.options.get("request_id")
        structlog.contextvars.bind_contextvars(
            job=message.actor_name, **({"request_id": request_id} if request_id else {})
        )

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        seconds = time.monotonic() - self._started.pop(message.message_id, time.monotonic())
        fields = {"args": message.args, "duration_ms": round(seconds * 1000, 3)}
        if exception is None:
            log.info("job_done", **fields)
        else:  # Dramatiq has logged the traceback, except of an outage
            reason = outage_reason(exception) or type(exception).__name__
            log.warning("job_failed", reason=reason, **fields)
        structlog.contextvars.clear_contextvars()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started.pop(message.message_id, None)
        structlog.contextvars.clear_contextvars()


class JobSpans(Middleware):
    """Records a span for each run of an actor, see `segmentql.tracing`.

    The span is in the context of Dramatiq's thread, as the values of `JobLogs` are.
    """

    def __init__(self) -> None:
        self._spans: dict[str, ActiveSpan] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._spans[message.message_id] = start_job(
            message.actor_name, message.queue_name, message.message_id, message.options
        )

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        span = self._spans.pop(message.message_id, None)
        if span is not None:
            span.end_job(exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)


def worker_middleware() -> list[Middleware]:
    """Return the middleware of a broker that runs actors. The order matters."""
    return [
        *([JobSpans()] if setup.is_on() else []),  # first, so that it ends after the others
        JobLogs(),
        TimeLimit(),
        ShutdownNotifications(),
        Retries(),
        AsyncIO(),
        ActorMetrics(),
    ]


def register_actors(
    broker: Broker, actors: Sequence[JobActor], context: Callable[[], object]
) -> None:
    """Register actors with a broker. Each run calls `context()` for its first argument."""
    for actor in actors:
        _register(broker, actor, context)


def _register(broker: Broker, actor: JobActor, context: Callable[[], object]) -> None:
    async def run(*args: int) -> None:
        await actor.work(context(), *args)

    job = actor.job
    dramatiq.actor(
        actor_name=job.name,
        queue_name=job.queue,
        broker=broker,
        time_limit=int(job.time_limit_seconds * 1000),
        max_retries=job.max_retries,
        min_backoff=200,
        max_backoff=int(job.max_backoff_seconds * 1000),
    )(run)
