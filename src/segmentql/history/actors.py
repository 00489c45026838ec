"""The periodic check that creates partitions of history ahead of time."""

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.history import service


async def ensure_future_partitions(database: Database) -> list[Message]:
    """Create the missing partitions. This is rare and fast, so it needs no job."""
    await database.transaction(service.create_future_partitions)
    return []


PERIODIC_CHECKS = (PeriodicCheck(ensure_future_partitions, every_seconds=3600),)
