"""The actors of memberships, and the periodic check that finds work whose message was lost."""

from typing import Final

from segmentql.adapters.coalescing import CoalescedWork
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.memberships import expiry
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES

EXPIRY_INTERVAL_SECONDS: Final = 0.1
"""The minimum interval between two recordings of leaves by TTL. One recording serves all messages
of the interval, because each transaction costs more than its leaves."""


async def expire_due_memberships(database: Database) -> None:
    """Record the leaves of all expired memberships.

    If there is none, which is frequent because a run records for other messages too, the run is one
    read without a transaction.
    """
    if not await database.read_one(expiry.any_due):
        return
    while await database.transaction(expiry.expire_due) == expiry.BATCH_ROWS:
        pass


async def record_segment_leaves(database: Database, segment_id: int) -> None:
    """Record the leaves of all members of a deleted segment."""
    while await database.transaction(
        lambda session: expiry.record_segment_leaves(session, segment_id)
    ):
        pass


async def find_due(database: Database) -> list[Message]:
    """Return the messages for all memberships whose leave is due and not recorded."""
    async with database.read() as session:
        messages = [Message(EXPIRE_DUE_MEMBERSHIPS)] if await expiry.any_due(session) else []
        segment_ids = await expiry.segments_with_unrecorded_leaves(session)
    return messages + [Message(RECORD_SEGMENT_LEAVES, (segment_id,)) for segment_id in segment_ids]


async def seconds_to_next(database: Database) -> float | None:
    """Return the time until the next membership expires."""
    async with database.read() as session:
        return await expiry.seconds_to_next(session)


ACTORS = (
    JobActor(
        EXPIRE_DUE_MEMBERSHIPS,
        CoalescedWork(expire_due_memberships, interval_seconds=EXPIRY_INTERVAL_SECONDS),
    ),
    JobActor(RECORD_SEGMENT_LEAVES, record_segment_leaves),
)

PERIODIC_CHECKS = (PeriodicCheck(find_due, seconds_to_next=seconds_to_next),)
