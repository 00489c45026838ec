"""The actor that deletes expired idempotency keys, and its periodic check."""

from typing import Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.idempotency import service
from segmentql.idempotency.jobs import DELETE_IDEMPOTENCY_KEYS

CHECK_SECONDS: Final = 300
"""The interval of the check. A key that has expired is not used, whether it is deleted or not."""


async def delete_idempotency_keys(database: Database) -> None:
    """Delete all expired keys, a chunk in each transaction."""
    while await database.transaction(service.delete_expired_keys) == service.DELETE_ROWS:
        pass


async def find_expired(database: Database) -> list[Message]:
    """Return the message for the deletion of keys if some have expired."""
    async with database.read() as session:
        has_expired = await service.has_expired_keys(session)
    return [Message(DELETE_IDEMPOTENCY_KEYS)] if has_expired else []


ACTORS = (JobActor(DELETE_IDEMPOTENCY_KEYS, delete_idempotency_keys),)

PERIODIC_CHECKS = (PeriodicCheck(find_expired, every_seconds=CHECK_SECONDS),)
