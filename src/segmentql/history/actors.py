"""The actor and the periodic checks of history: member counts, and partitions ahead of time."""

from typing import Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.history import member_counts, partitions
from segmentql.history.jobs import ROLL_UP_MEMBER_COUNTS
from segmentql.history.settled import wait_for_settled_row

SETTLE_SECONDS: Final = 30
"""How long the roll-up waits for the transactions that are writing history."""


async def roll_up_member_counts(database: Database) -> None:
    """Add the settled history to the sums of the hours.

    While a long transaction writes history, nothing is added. Counts are exact all the same.
    """
    settled = await wait_for_settled_row(database, seconds=SETTLE_SECONDS)
    if settled is None:
        return
    while await database.transaction(
        lambda session: member_counts.roll_up(session, settled.position)
    ):
        pass


async def find_new_history(database: Database) -> list[Message]:
    """Return the message for the roll-up if history has entries that are not rolled up."""
    async with database.read() as session:
        has_new = await member_counts.has_new_history(session)
    return [Message(ROLL_UP_MEMBER_COUNTS)] if has_new else []


async def ensure_future_partitions(database: Database) -> list[Message]:
    """Create the missing partitions. This is rare and fast, so it needs no job."""
    await database.transaction(partitions.create_future_partitions)
    return []


ACTORS = (JobActor(ROLL_UP_MEMBER_COUNTS, roll_up_member_counts),)

PERIODIC_CHECKS = (
    PeriodicCheck(find_new_history, every_seconds=member_counts.ROLL_UP_INTERVAL_SECONDS),
    PeriodicCheck(ensure_future_partitions, every_seconds=3600),
)
