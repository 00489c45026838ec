"""The actor that deletes objects from the store, and its periodic check."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.adapters.storage import Storage
from segmentql.errors import StoreFailed, StoreUnavailable
from segmentql.objects import service
from segmentql.objects.jobs import DELETE_OBJECTS
from segmentql.objects.records import ClaimedObject

log = structlog.get_logger(__name__)

CONCURRENT_DELETIONS: Final = 8


@dataclass(frozen=True)
class ObjectContext:
    """The dependencies of the actor. Its runs in one process share it."""

    database: Database
    storage: Storage
    run_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Allows one run at a time in a process, so that a store that hangs blocks one thread only."""


async def delete_objects(object_context: ObjectContext) -> None:
    """Delete all objects that are due. An object that fails waits for its next attempt.

    The run ends at the first batch with a failure. The periodic check starts the next one.
    """
    if object_context.run_lock.locked():
        return  # the other run deletes them
    async with object_context.run_lock:
        while await _delete_batch(object_context):
            pass


async def _delete_batch(object_context: ObjectContext) -> bool:
    """Delete a batch of objects; return whether there may be more and the store works."""
    database = object_context.database
    claimed = await database.transaction(service.claim)
    deleted: list[ClaimedObject] = []
    failures: list[BaseException] = []
    for first in range(0, len(claimed), CONCURRENT_DELETIONS):
        part = claimed[first : first + CONCURRENT_DELETIONS]
        for item, failure in zip(part, await _delete(object_context.storage, part), strict=True):
            if failure is None:
                deleted.append(item)
            else:
                failures.append(failure)
        if any(isinstance(failure, StoreUnavailable) for failure in failures):
            break
    if deleted:
        await database.transaction(lambda session: service.confirm(session, deleted))
    for failure in failures:
        if not isinstance(failure, StoreFailed):
            raise failure
    if failures:
        log.warning(
            "objects_not_deleted", objects=len(claimed) - len(deleted), reason=str(failures[0])
        )
    return bool(claimed) and not failures


async def _delete(storage: Storage, objects: Sequence[ClaimedObject]) -> list[BaseException | None]:
    """Delete objects with their unfinished uploads; return the failure of each, or None."""
    return await asyncio.gather(
        *(storage.delete_with_parts(item.object_key) for item in objects), return_exceptions=True
    )


async def find_due(database: Database) -> list[Message]:
    """Return the message for the deletion of objects if some are due."""
    async with database.read() as session:
        is_due = await service.any_due(session)
    return [Message(DELETE_OBJECTS)] if is_due else []


ACTORS = (JobActor(DELETE_OBJECTS, delete_objects),)

PERIODIC_CHECKS = (PeriodicCheck(find_due),)
