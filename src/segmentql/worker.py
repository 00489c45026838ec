"""The worker: the broker, the actors and periodic checks of all features, and the scheduler."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import dramatiq.worker
import structlog
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from segmentql import buffered_metrics
from segmentql.adapters.broker import WaitingBroker
from segmentql.adapters.change_hints import ChangeHints
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, JobPublisher, register_actors, worker_middleware
from segmentql.adapters.outages import leave_outages_to_job_logs
from segmentql.adapters.scheduler import PeriodicCheck, Scheduler
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.exports import actors as export_actors
from segmentql.history import actors as history_actors
from segmentql.idempotency import actors as idempotency_actors
from segmentql.imports import actors as import_actors
from segmentql.memberships import actors as membership_actors
from segmentql.objects import actors as object_actors
from segmentql.reports import actors as report_actors
from segmentql.rollouts import actors as rollout_actors
from segmentql.settings import Settings, open_telemetry_variables
from segmentql.tracing import setup
from segmentql.worker_http import WorkerHttp

log = structlog.get_logger(__name__)

ACTORS: Final[tuple[JobActor, ...]] = (
    *membership_actors.ACTORS,
    *rollout_actors.ACTORS,
    *history_actors.ACTORS,
    *idempotency_actors.ACTORS,
)
FILE_ACTORS: Final = (*report_actors.ACTORS, *export_actors.ACTORS)
IMPORT_ACTORS: Final = import_actors.ACTORS
"""Separate from the others, because these actors also need the object store."""

RETENTION_ACTORS: Final = history_actors.RETENTION_ACTORS
OBJECT_ACTORS: Final = object_actors.ACTORS

PERIODIC_CHECKS: Final[tuple[PeriodicCheck, ...]] = (
    *membership_actors.PERIODIC_CHECKS,
    *rollout_actors.PERIODIC_CHECKS,
    *report_actors.PERIODIC_CHECKS,
    *import_actors.PERIODIC_CHECKS,
    *export_actors.PERIODIC_CHECKS,
    *object_actors.PERIODIC_CHECKS,
    *history_actors.PERIODIC_CHECKS,
    *idempotency_actors.PERIODIC_CHECKS,
)

IDLE_THREAD_STOP_MILLISECONDS: Final = 100
"""How long a stop waits until idle threads have ended, see `adapters.broker.WorkQueue`."""

RECONNECT_SECONDS: Final = 1

NICENESS: Final = 10
"""The niceness of the worker, 0 to 19. The API has 0."""

STOP_SECONDS: Final = 25
"""How long running jobs may take to finish at a stop. Unfinished jobs are requeued."""


class Runtime(Middleware):
    """Starts and stops the database, the object store and the scheduler on the event loop.

    It must come after the AsyncIO middleware, which creates and stops the loop.
    """

    def __init__(
        self, settings: Settings, publisher: JobPublisher, listening: socket.socket | None = None
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._publisher = publisher
        self._database: Database | None = None
        self._hints: ChangeHints | None = None
        self._storage: Storage | None = None
        self._object_context: object_actors.ObjectContext | None = None
        self._import_context: import_actors.ImportContext | None = None
        self._opening: asyncio.Task[None] | None = None
        self._scheduler: asyncio.Task[None] | None = None
        self._http: WorkerHttp | None = None

    def database(self) -> Database:
        if self._database is None:
            raise RuntimeError("the worker has not booted")
        return self._database

    def import_context(self) -> import_actors.ImportContext:
        if self._import_context is None:
            raise RuntimeError("the worker has not booted")
        return self._import_context

    def file_context(self) -> FileContext:
        if self._storage is None:
            raise RuntimeError("the worker has not booted")
        return FileContext(self.database(), self._storage, self._settings.report_retention_days)

    def retention_context(self) -> history_actors.RetentionContext:
        return history_actors.RetentionContext(
            self.database(), self._settings.history_retention_months
        )

    def object_context(self) -> object_actors.ObjectContext:
        if self._object_context is None:
            raise RuntimeError("the worker has not booted")
        return self._object_context

    def before_worker_boot(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        _run_on_loop(self._start(worker))

    def after_worker_shutdown(self, broker: Broker, worker: dramatiq.worker.Worker) -> None:
        _run_on_loop(self._stop())

    async def _start(self, worker: dramatiq.worker.Worker) -> None:
        self._hints = ChangeHints(self._settings.redis_url)
        self._database = Database(
            self._settings,
            name="segmentql worker",
            publish=self._publisher.publish,
            on_history_commit=self._hints.publish,
        )
        self._storage = Storage(self._settings)
        self._object_context = object_actors.ObjectContext(self._database, self._storage)
        self._import_context = import_actors.ImportContext.create(
            self._database,
            self._storage,
            retention_days=self._settings.report_retention_days,
            worker_threads=self._settings.worker_threads,
        )
        # In the background: it takes half a second, and otherwise the first report would wait.
        self._opening = asyncio.create_task(self._storage.open())
        if self._settings.scheduler == "on":
            scheduler = Scheduler(self._database, PERIODIC_CHECKS, self._publisher.publish)
            self._scheduler = asyncio.create_task(scheduler.run())
        if self._listening:
            self._http = WorkerHttp(self._settings, self._listening, lambda: _is_healthy(worker))

    async def _stop(self) -> None:
        if self._http:
            await self._http.stop()
        if self._scheduler:
            self._scheduler.cancel()
            await asyncio.wait([self._scheduler])
        if self._opening:
            await asyncio.wait([self._opening])
        await self.file_context().storage.close()
        await self.database().dispose()
        if self._hints:
            self._hints.close()
        buffered_metrics.flush()


def _is_healthy(worker: dramatiq.worker.Worker) -> bool:
    """Return whether all threads are alive: consumers and worker threads."""
    threads = [*worker.consumers.values(), *worker.workers]
    return bool(threads) and all(thread.is_alive() for thread in threads)


def _run_on_loop(work: Coroutine[Any, Any, None]) -> None:
    thread = get_event_loop_thread()
    if thread is None:
        raise RuntimeError("the AsyncIO middleware must come before this one")
    thread.run_coroutine(work)


def make_worker(
    settings: Settings, publisher: JobPublisher, listening: socket.socket | None = None
) -> dramatiq.worker.Worker:
    """Return a worker with all actors, for the caller to `start` and `stop`.

    Args:
        listening: the socket of `/healthz` and `/metrics`, if any.
    """
    runtime = Runtime(settings, publisher, listening)
    leave_outages_to_job_logs()
    broker = WaitingBroker(settings.redis_url, [*worker_middleware(), runtime])
    register_actors(broker, ACTORS, runtime.database)
    register_actors(broker, FILE_ACTORS, runtime.file_context)
    register_actors(broker, IMPORT_ACTORS, runtime.import_context)
    register_actors(broker, OBJECT_ACTORS, runtime.object_context)
    register_actors(broker, RETENTION_ACTORS, runtime.retention_context)
    # Dramatiq reads this from the environment at import. Its default of 3 s is long for TTLs.
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = RECONNECT_SECONDS
    return dramatiq.worker.Worker(
        broker, worker_timeout=IDLE_THREAD_STOP_MILLISECONDS, worker_threads=settings.worker_threads
    )


def lower_priority() -> None:
    """Lower the priority of this process below the API's on the same machine."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    # If Linux groups processes by session, niceness applies only within a session, and a file has
    # the niceness of the group, see "The autogroup feature" in sched(7). The file is written only
    # if this process leads its session, so that a shell's session is not changed.
    if hasattr(os, "getsid") and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))


def run(settings: Settings, listening: socket.socket | None) -> None:
    """Run jobs until SIGTERM or SIGINT. Then finish the running jobs and requeue the others.

    Args:
        listening: the socket of `/healthz` and `/metrics`, see `worker_http`, if any.
    """
    # The main thread waits for the blocked signals. A handler could miss one: Python runs handlers
    # between bytecodes, so a signal just before a thread blocks on a lock waits for the next one.
    # Other threads inherit the mask.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    lower_priority()
    setup.start(open_telemetry_variables(), service_name="segmentql-worker")
    publisher = JobPublisher(settings.redis_url)
    worker = make_worker(settings, publisher, listening)
    worker.start()
    log.info("worker_started", threads=settings.worker_threads, scheduler=settings.scheduler)
    signal.sigwait(stop_signals)
    log.info("worker_stopping")
    worker.stop(timeout=STOP_SECONDS * 1000)
    publisher.close()
    setup.stop()
    log.info("worker_stopped")
