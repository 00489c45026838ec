"""The actors and the periodic checks of history: member counts, partitions and retention."""

from dataclasses import dataclass
from typing import Final

import structlog

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.errors import TimedOut
from segmentql.history import member_counts, partitions, retention
from segmentql.history.jobs import DROP_OLD_HISTORY, ROLL_UP_MEMBER_COUNTS
from segmentql.history.settled import wait_for_settled_row

log = structlog.get_logger(__name__)

SETTLE_SECONDS: Final = 30
"""How long the roll-up waits for the transactions that are writing history."""

DROP_TIMEOUT_SECONDS: Final = 3600
"""The time limit of the statement that drops a month, which copies the kept joins."""


@dataclass(frozen=True)
class RetentionContext:
    """The dependencies of the actor that drops old history."""

    database: Database
    months: int
    """The number of months that are kept before the current one. 0 keeps all history."""


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


async def drop_old_history(context: RetentionContext) -> None:
    """Drop the months of history that are older than the retention, the oldest first.

    If history cannot be dropped now, the next job continues.
    """
    if not context.months:
        return
    database = context.database
    async with database.read() as session:
        earliest = await retention.retention_start(session, months=context.months)
    try:
        pruned = await database.transaction(
            lambda session: retention.prune_history(session, earliest), seconds=DROP_TIMEOUT_SECONDS
        )
        if pruned:
            log.info("history_pruned", earliest=earliest.isoformat(), entries=pruned)
        async with database.read() as session:
            months = await retention.months_to_drop(session, earliest)
        for month in months:
            kept = await database.transaction(
                lambda session: retention.drop_month(session, month),  # noqa: B023
                seconds=DROP_TIMEOUT_SECONDS,
            )
            if kept is not None:
                metrics.HISTORY_PARTITIONS_DROPPED.inc()
                log.info("history_month_dropped", month=f"{month:%Y-%m}", kept_joins=kept)
    except (retention.NotReady, TimedOut) as error:
        metrics.HISTORY_DROPS_POSTPONED.inc()
        log.warning("history_drop_postponed", reason=str(error) or "other transactions use history")


async def schedule_retention(database: Database) -> list[Message]:
    """Return the message of the job that drops old history. It ends at once if there is none."""
    return [Message(DROP_OLD_HISTORY)]


ACTORS = (JobActor(ROLL_UP_MEMBER_COUNTS, roll_up_member_counts),)

RETENTION_ACTORS = (JobActor(DROP_OLD_HISTORY, drop_old_history),)
"""Separate from the others, because the actor also needs the retention."""

PERIODIC_CHECKS = (
    PeriodicCheck(find_new_history, every_seconds=member_counts.ROLL_UP_INTERVAL_SECONDS),
    PeriodicCheck(ensure_future_partitions, every_seconds=3600),
    PeriodicCheck(schedule_retention, every_seconds=3600),
)
