"""The actors of imports, and the periodic checks that find work whose message was lost."""

import time
from dataclasses import dataclass
from typing import Final, Literal, Self

import structlog

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.adapters.storage import Storage
from segmentql.csv_files.heartbeats import run_with_heartbeats
from segmentql.errors import (
    MutationRejected,
    ObjectMissing,
    StoreFailed,
    StoreRejected,
    TimedOut,
    Unavailable,
)
from segmentql.imports import (
    attempts,
    chunks,
    cleanup,
    completion,
    forecast,
    reads,
    result_files,
    schedule,
)
from segmentql.imports.file_format import FileRefused
from segmentql.imports.jobs import (
    ADVANCE_IMPORT,
    CLEAN_UP_IMPORTS,
    FILTER_IMPORT_RESULT,
    FINISH_IMPORT,
)
from segmentql.imports.reading import stage_list
from segmentql.imports.run_slots import RunSlots

log = structlog.get_logger(__name__)

MAX_RUN_SECONDS: Final = 5
"""How long one job applies chunks before it enqueues its continuation."""

CLEANUP_SECONDS: Final = 60
"""The interval between searches for imports that have waited too long, and for old results."""

INTERNAL_FAILURE: Final = "an internal error; see the worker's log"
TIMEOUT_FAILURE: Final = "repeated timeouts: the database was too slow, or users were locked"
DATABASE_FAILURE: Final = "the database became unavailable"
END_PASSED: Final = "`expiresAt` passed before all users were added"
FILE_MISSING: Final = "the uploaded file is missing in the object store"


@dataclass(frozen=True)
class ImportContext:
    """The dependencies of the actors of imports. Their runs in one process share it."""

    database: Database
    storage: Storage
    retention_days: int
    reading: RunSlots
    """The slots of runs that read and check a list. They also limit the memory of the process."""
    applying: RunSlots
    """The slots of runs that apply chunks."""
    finishing: RunSlots
    """The slots of runs that write a result."""

    @classmethod
    def create(
        cls, database: Database, storage: Storage, *, retention_days: int, worker_threads: int
    ) -> Self:
        """Return the dependencies of a worker with this number of threads."""
        slots = [RunSlots(worker_threads, database.publish) for _ in range(3)]
        return cls(database, storage, retention_days, *slots)


async def advance_import(context: ImportContext, import_id: int) -> None:
    """Read the list of an import if that is due, then apply it. Each part needs a free slot."""
    database, message = context.database, Message(ADVANCE_IMPORT, (import_id,))
    async with database.read() as session:
        is_unread = await attempts.is_unread(session, import_id)
    if is_unread:
        with context.reading.take(message) as has_slot:
            if not has_slot:
                return
            attempt = await database.transaction(lambda session: attempts.claim(session, import_id))
            if attempt is None or not await _read(context, attempt):
                return
    with context.applying.take(message) as has_slot:
        if has_slot:
            await _apply(database, import_id)


async def _read(context: ImportContext, attempt: attempts.Attempt) -> bool:
    """Make one attempt to read the list; return whether it succeeded."""
    try:
        await _read_with_heartbeat(context, attempt)
    except attempts.LeaseLost:
        return False
    except FileRefused as error:
        reason = str(error)
        await context.database.transaction(
            lambda session: attempts.refuse(session, attempt, reason=reason)
        )
        return False
    except BaseException as error:  # A cancelled attempt has failed as well.
        reason, rejected = _reason(error), isinstance(error, StoreRejected)
        await context.database.transaction(
            lambda session: attempts.fail(
                session, attempt, reason=reason, rejected_by_store=rejected
            )
        )
        if reason == INTERNAL_FAILURE:
            raise
        return False
    return True


async def _read_with_heartbeat(context: ImportContext, attempt: attempts.Attempt) -> None:
    """Read the list and make the forecast, and extend the attempt's lease meanwhile."""
    await run_with_heartbeats(
        _read_list(context, attempt),
        lambda: _extend_lease(context.database, attempt),
        interval_seconds=attempts.HEARTBEAT_SECONDS,
    )


async def _extend_lease(database: Database, attempt: attempts.Attempt) -> Literal[True]:
    """Extend the lease.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    await database.transaction(lambda session: attempts.extend_lease(session, attempt))
    return True


async def _read_list(context: ImportContext, attempt: attempts.Attempt) -> None:
    database, import_id = context.database, attempt.import_id
    async with database.read() as session:
        record = (await reads.imports_by_id(session, [import_id]))[import_id]
    started = time.monotonic()
    await stage_list(database, context.storage, attempt, record)
    await database.transaction(
        lambda session: forecast.mark_duplicates(session, record),
        seconds=forecast.FORECAST_TIMEOUT_SECONDS,
    )
    status = await database.transaction(
        lambda session: forecast.make_forecast(session, attempt, record),
        seconds=forecast.FORECAST_TIMEOUT_SECONDS,
    )
    seconds = time.monotonic() - started
    metrics.IMPORT_VALIDATION_SECONDS.observe(seconds)
    log.info(
        "import_read",
        import_id=record.global_id,
        status=status,
        duration_ms=round(seconds * 1000),
    )


async def _apply(database: Database, import_id: int) -> None:
    """Apply chunks for up to `MAX_RUN_SECONDS`, then enqueue a message if more are left."""
    deadline = time.monotonic() + MAX_RUN_SECONDS
    try:
        while await database.transaction(lambda session: chunks.apply_chunk(session, import_id)):
            if time.monotonic() > deadline:
                database.publish([Message(ADVANCE_IMPORT, (import_id,))])
                return
    except Unavailable:
        raise  # Not a failure of the import: the scheduler finds it when the database is back.
    except Exception as error:
        reason = _reason(error)
        is_final = isinstance(error, MutationRejected | chunks.TooManyRemovals)
        await database.transaction(
            lambda session: completion.record_failure(session, import_id, reason, is_final=is_final)
        )
        if reason == INTERNAL_FAILURE:
            raise


def _reason(error: BaseException) -> str:
    if isinstance(error, ObjectMissing):
        return FILE_MISSING
    if isinstance(error, StoreFailed):
        return error.reason
    if isinstance(error, chunks.TooManyRemovals):
        return str(error)
    if isinstance(error, MutationRejected):
        return END_PASSED
    if isinstance(error, TimedOut):
        return TIMEOUT_FAILURE
    return DATABASE_FAILURE if isinstance(error, Unavailable) else INTERNAL_FAILURE


async def finish_import(context: ImportContext, import_id: int) -> None:
    """Make the result of a finished import, and delete what the import does not need any more."""
    with context.finishing.take(Message(FINISH_IMPORT, (import_id,))) as has_slot:
        if has_slot:
            await result_files.finish(context.database, context.storage, import_id)


async def filter_import_result(context: ImportContext, import_id: int, mask: int) -> None:
    """Make the file with the outcomes of a mask, from the result of an import."""
    message = Message(FILTER_IMPORT_RESULT, (import_id, mask))
    with context.finishing.take(message) as has_slot:
        if has_slot:
            await result_files.make_filtered(context.database, context.storage, import_id, mask)


async def clean_up_imports(context: ImportContext) -> None:
    """Cancel imports that have waited too long, and remove old results."""
    database, days = context.database, context.retention_days
    async with database.read() as session:
        overdue = await cleanup.overdue_imports(session)
    for import_id in overdue:
        await database.transaction(
            lambda session: cleanup.cancel_overdue(session, import_id)  # noqa: B023
        )
    while await database.transaction(
        lambda session: cleanup.remove_old_results(session, days=days)
    ):
        pass


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all imports whose work is overdue."""
    async with database.read() as session:
        due = await schedule.due_imports(session)
        finished = await cleanup.imports_to_finish(session)
    return [
        *(Message(ADVANCE_IMPORT, (import_id,)) for import_id in due),
        *(Message(FINISH_IMPORT, (import_id,)) for import_id in finished),
    ]


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until an import has work that is overdue."""
    async with database.read() as session:
        return await schedule.seconds_to_next(session)


async def schedule_cleanup(database: Database) -> list[Message]:
    """Return the message for the clean-up of imports."""
    return [Message(CLEAN_UP_IMPORTS)]


ACTORS = (
    JobActor(ADVANCE_IMPORT, advance_import),
    JobActor(FINISH_IMPORT, finish_import),
    JobActor(FILTER_IMPORT_RESULT, filter_import_result),
    JobActor(CLEAN_UP_IMPORTS, clean_up_imports),
)

PERIODIC_CHECKS = (
    PeriodicCheck(find_due, seconds_to_next=seconds_to_next),
    PeriodicCheck(schedule_cleanup, every_seconds=CLEANUP_SECONDS),
)
