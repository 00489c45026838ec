"""The worker: Dramatiq's broker, every feature's actors and watches, and the scheduler."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import dramatiq.worker
import structlog
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from segmentql.adapters.broker import WaitingBroker
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Actor, JobPublisher, register_actors, worker_middleware
from segmentql.adapters.scheduler import PeriodicCheck, Scheduler
from segmentql.adapters.storage import Storage
from segmentql.history import actors as history_actors
from segmentql.memberships import actors as membership_actors
from segmentql.reports import actors as report_actors
from segmentql.rollouts import actors as rollout_actors
from segmentql.settings import Settings
from segmentql.worker_http import WorkerHttp

log = structlog.get_logger(__name__)

ACTORS: Final[tuple[Actor, ...]] = (*membership_actors.ACTORS, *rollout_actors.ACTORS)
REPORT_ACTORS: Final = report_actors.ACTORS
"""Apart from the others, for they need the store as well."""

PERIODIC_CHECKS: Final[tuple[PeriodicCheck, ...]] = (
    *membership_actors.PERIODIC_CHECKS,
    *rollout_actors.PERIODIC_CHECKS,
    *report_actors.PERIODIC_CHECKS,
    *history_actors.PERIODIC_CHECKS,
)

END_MILLISECONDS: Final = 100
"""How long a stop waits for the idle worker threads to end; see `adapters.broker.WorkQueue`."""

RECONNECT_SECONDS: Final = 1
NICENESS: Final = 10
"""By how much the worker's priority is below that of the API, of 19."""

STOP_SECONDS: Final = 25
"""How long jobs under way may take to finish; what is left is handed back."""


class Runtime(Middleware):
    """What lives on the worker's event loop: the database and the scheduler.

    Must come after AsyncIO, which makes the loop before and ends it after.
    """

    def __init__(
        self, settings: Settings, publisher: JobPublisher, listening: socket.socket | None = None
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._publisher = publisher
        self._database: Database | None = None
        self._storage: Storage | None = None
        self._opening: asyncio.Task[None] | None = None
        self._scheduler: asyncio.Task[None] | None = None
        self._http: WorkerHttp | None = None

    def database(self) -> Database:
        if self._database is None:
            raise RuntimeError("the worker has not booted")
        return self._database

    def report_context(self) -> report_actors.ReportContext:
        if self._storage is None:
            raise RuntimeError("the worker has not booted")
        return report_actors.ReportContext(
            self.database(), self._storage, self._settings.report_retention_days
        )

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        _on_loop(self._start(worker))

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        _on_loop(self._stop())

    async def _start(self, worker: dramatiq.worker.Worker) -> None:
        self._database = Database(
            self._settings, name="segmentql worker", publish=self._publisher.publish
        )
        self._storage = Storage(self._settings)
        # Beside the rest, for it takes half a second that the first report would wait for.
        self._opening = asyncio.create_task(self._storage.open())
        if self._settings.scheduler == "on":
            scheduler = Scheduler(self._database, PERIODIC_CHECKS, self._publisher.publish)
            self._scheduler = asyncio.create_task(scheduler.run())
        if self._listening:
            self._http = WorkerHttp(self._settings, self._listening, lambda: _works(worker))

    async def _stop(self) -> None:
        if self._http:
            await self._http.stop()
        if self._scheduler:
            self._scheduler.cancel()
            await asyncio.wait([self._scheduler])
        if self._opening:
            await asyncio.wait([self._opening])
        await self.report_context().storage.close()
        await self.database().dispose()


def _works(worker: dramatiq.worker.Worker) -> bool:
    """Whether all its threads live: those that take messages, and those that carry them out."""
    threads = [*worker.consumers.values(), *worker.workers]
    return bool(threads) and all(thread.is_alive() for thread in threads)


def _on_loop(work: Coroutine[Any, Any, None]) -> None:
    thread = get_event_loop_thread()
    if thread is None:
        raise RuntimeError("the AsyncIO middleware must come before this one")
    thread.run_coroutine(work)


def make_worker(
    settings: Settings, publisher: JobPublisher, listening: socket.socket | None = None
) -> dramatiq.worker.Worker:
    """Make a worker that runs every actor and answers where it listens; `start` and `stop` it."""
    runtime = Runtime(settings, publisher, listening)
    broker = WaitingBroker(settings.redis_url, [*worker_middleware(), runtime])
    register_actors(broker, ACTORS, runtime.database)
    register_actors(broker, REPORT_ACTORS, runtime.report_context)
    # Dramatiq reads this from the environment when imported; 3 s is long for a TTL.
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = RECONNECT_SECONDS
    return dramatiq.worker.Worker(
        broker, worker_timeout=END_MILLISECONDS, worker_threads=settings.worker_threads
    )


def lower_priority() -> None:
    """Let what answers people go first where it shares a machine with this worker."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    # Where Linux groups processes by session, niceness counts within a session alone, and that of
    # the group is a file of its own: see "The autogroup feature" in sched(7). Another's session
    # (a shell's) stays as it is.
    if hasattr(os, "getsid") and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))


def run(settings: Settings, listening: socket.socket | None) -> None:
    """Work until SIGTERM or SIGINT; then finish what is under way and hand back the rest.

    `/healthz` and `/metrics` are answered at `listening`, see `worker_http`.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lower_priority()
    publisher = JobPublisher(settings.redis_url)
    worker = make_worker(settings, publisher, listening)
    worker.start()
    log.info("worker_started", threads=settings.worker_threads, scheduler=settings.scheduler)
    stop.wait()
    log.info("worker_stopping")
    worker.stop(timeout=STOP_SECONDS * 1000)
    publisher.close()
    log.info("worker_stopped")
