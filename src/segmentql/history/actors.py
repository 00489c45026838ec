"""How the scheduler keeps history's partitions ahead of time."""

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.history import service


async def keep_partitions_ahead(database: Database) -> list[Message]:
    """Make what is missing at once: it is rare and takes no time, so it needs no job."""
    await database.transaction(service.make_partitions_ahead)
    return []


PERIODIC_CHECKS = (PeriodicCheck(keep_partitions_ahead, every_seconds=3600),)
