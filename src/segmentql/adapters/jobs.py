"""The job queue: what a job is, how one is sent, and what a worker does around each run.

A message is a hint that there is work; the truth is a row in PostgreSQL, and the scheduler finds
what a lost message left undone. So sending is never waited for, a delay is never longer than about
a minute, and every actor may run twice, at once, or for nothing.
"""

import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
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

log = structlog.get_logger(__name__)

MAX_DELAY_SECONDS: Final = 60
"""What is due later is the scheduler's: delayed messages wait in one list, not by due time."""

MAX_UNSENT: Final = 1000
"""Messages that may wait for a slow Redis before further ones are left to the scheduler."""

CLOSE_SECONDS: Final = 2
"""How long what waits to be sent holds up the end of a process."""


@dataclass(frozen=True)
class Job:
    """A kind of work: its actor's name, its queue, and the limits of one try."""

    name: str
    queue: str
    time_limit_seconds: float
    max_retries: int
    max_backoff_seconds: float = 60


EXPIRE_DUE_MEMBERSHIPS: Final = Job(
    "expire_due_memberships", queue="expiry", time_limit_seconds=60, max_retries=3
)
"""On a queue of its own, so that its delayed messages wait behind no others."""

RECORD_SEGMENT_LEAVES: Final = Job(
    "record_segment_leaves", queue="cleanup", time_limit_seconds=120, max_retries=3
)


ADVANCE_ROLLOUT: Final = Job(
    "advance_rollout", queue="rollouts", time_limit_seconds=900, max_retries=3
)
START_ROLLOUT_STAGE: Final = Job(
    "start_rollout_stage", queue="stages", time_limit_seconds=900, max_retries=3
)
"""The same work when a stage is due, on a queue of its own, as the ends of memberships."""


MAKE_REPORT: Final = Job("make_report", queue="reports", time_limit_seconds=2400, max_retries=0)
"""No retries of Dramatiq's: the row counts tries, and says when the next one is due."""

REMOVE_OLD_REPORTS: Final = Job(
    "remove_old_reports", queue="cleanup", time_limit_seconds=600, max_retries=3
)


QUEUES: Final = ("expiry", "cleanup", "rollouts", "stages", "reports")
"""Of all jobs."""


@dataclass(frozen=True)
class Message:
    """A hint that there is work of a kind; `args` are ids only."""

    job: Job
    args: tuple[int, ...] = ()
    delay_seconds: float = 0


@dataclass(frozen=True)
class Actor:
    """What carries out a job: `work(context, *args)` on the worker's event loop."""

    job: Job
    work: Callable[..., Awaitable[None]]


class JobPublisher:
    """Sends messages from a thread of its own, so that no request waits for Redis."""

    def __init__(self, redis_url: str) -> None:
        self._broker = WaitingBroker(redis_url, [])
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._unsent = threading.BoundedSemaphore(MAX_UNSENT)
        self._close_deadline = math.inf

    def publish(self, messages: Sequence[Message]) -> None:
        """Send soon; what cannot be sent is counted, logged, and left to the scheduler."""
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        for message in messages:
            if self._unsent.acquire(blocking=False):
                self._thread.submit(self._send, message, request_id)
            else:
                metrics.MESSAGES_LOST.labels(message.job.name).inc()

    def _send(self, message: Message, request_id: str | None) -> None:
        try:
            if time.monotonic() > self._close_deadline:
                raise TimeoutError("the process ends")
            self._broker.enqueue(
                dramatiq.Message(
                    queue_name=message.job.queue,
                    actor_name=message.job.name,
                    args=message.args,
                    kwargs={},
                    options={"request_id": request_id} if request_id else {},
                ),
                delay=math.ceil(message.delay_seconds * 1000) or None,
            )
        except (RedisError, OSError) as error:
            metrics.MESSAGES_LOST.labels(message.job.name).inc()
            log.warning("message_not_sent", job=message.job.name, reason=str(error))
        finally:
            self._unsent.release()

    def close(self) -> None:
        """Send what waits, as far as Redis takes it soon; returns once the thread has ended."""
        self._close_deadline = time.monotonic() + CLOSE_SECONDS
        self._thread.shutdown(wait=True)
        self._broker.close()
        self._broker.client.close()


class ActorMetrics(Middleware):
    """Counts each run of an actor and how it ended."""

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
    """A line for each run of an actor; what else is logged meanwhile names job and request, too.

    Dramatiq's thread hands its context to the event loop, where the actor runs.
    """

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started[message.message_id] = time.monotonic()
        asked_by = message.options.get("request_id")
        structlog.contextvars.bind_contextvars(
            job=message.actor_name, **({"request_id": asked_by} if asked_by else {})
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
        else:  # Dramatiq has logged its traceback, if it is none that was expected
            log.warning("job_failed", reason=type(exception).__name__, **fields)
        structlog.contextvars.clear_contextvars()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started.pop(message.message_id, None)
        structlog.contextvars.clear_contextvars()


def worker_middleware() -> list[Middleware]:
    """What every broker that runs actors has, in this order."""
    return [
        JobLogs(),
        TimeLimit(),
        ShutdownNotifications(),
        Retries(),
        AsyncIO(),
        ActorMetrics(),
    ]


def register_actors(broker: Broker, actors: Sequence[Actor], context: Callable[[], object]) -> None:
    """Make each actor known to `broker`; `context()` is asked at each run."""
    for actor in actors:
        _register(broker, actor, context)


def _register(broker: Broker, actor: Actor, context: Callable[[], object]) -> None:
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
