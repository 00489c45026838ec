"""The periodic check that creates partitions of history ahead of time."""

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.history import service


async def keep_partitions_ahead(database: Database) -> list[Message]:
    """Create the missing partitions. This is rare and fast, so it needs no job."""
    await database.transaction(service.make_partitions_ahead)
    return []


PERIODIC_CHECKS = (PeriodicCheck(keep_partitions_ahead, every_seconds=3600),)
