"""The retention of history: months that are older than the setting are dropped.

History then begins at `earliest_at`, the start of a month in UTC. Of the entries before it, only
the joins of memberships that were active at this time are kept, because the state at every later
time depends on them. An earlier time cannot be read. `dropped_position` is the highest position of
the dropped entries: a reader of the feed cannot continue before it.

A statement that reads history reads `earliest_at` as well, in the same snapshot: the beginning is
stored before, or in the transaction that drops.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import driver_error
from segmentql.adapters.database_errors import sqlstate
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import HistoryDropped

EARLIEST_AT: Final = "(SELECT earliest_at FROM dropped_history)"
"""SQL expression: the beginning of history."""

DROPPED_POSITION: Final = "(SELECT dropped_position FROM dropped_history)"
"""SQL expression: the position up to which history may have been dropped."""

NOT_READY_CODE: Final = "55000"
"""The SQLSTATE of `object_not_in_prerequisite_state`."""

_READ_EARLIEST_AT = text("SELECT earliest_at FROM dropped_history")
_READ_DROPPED_POSITION = text("SELECT dropped_position FROM dropped_history")

_PRUNE = text("SELECT prune_history(:earliest)")
_DROP_MONTH = text("SELECT drop_history_month(:first_day)")

# The current month and the months of the setting before it are kept.
_RETENTION_START = text("""
SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => :months))
    AT TIME ZONE 'UTC' AS earliest
""")

_MONTHS_TO_DROP = text("""
SELECT month
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN to_date(substring(c.relname FROM '^history_([0-9]{4}_[0-9]{2})$'), 'YYYY_MM') AS month
WHERE i.inhparent = CAST('history' AS regclass)
    AND (month + interval '1 month') AT TIME ZONE 'UTC' <= :earliest
ORDER BY month
""")


class NotReady(Exception):
    """History cannot be dropped yet, because workers have not finished with it."""


async def read_earliest_at(session: ReadSession | WriteSession) -> datetime | None:
    """Return the beginning of history. None if nothing was dropped."""
    return finite_time(await session.scalar(_READ_EARLIEST_AT))


def finite_time(earliest_at: datetime | None) -> datetime | None:
    """Return a value of `dropped_history.earliest_at`; None if it is `-infinity`.

    It is `-infinity` if nothing was dropped.
    """
    is_set = earliest_at is not None and earliest_at.replace(tzinfo=UTC).year > 1
    return earliest_at if is_set else None


async def check_history_since(session: ReadSession | WriteSession, at: datetime) -> None:
    """Check that history is complete at a time, and was when earlier statements read it.

    Raises:
        HistoryDropped: history begins later.
    """
    earliest_at = await read_earliest_at(session)
    if earliest_at is not None and at < earliest_at:
        raise HistoryDropped(earliest_at)


async def read_dropped_position(session: ReadSession) -> int:
    """Return the position up to which history may have been dropped, 0 if nothing was."""
    return int((await session.execute(_READ_DROPPED_POSITION)).scalar_one())


async def retention_start(session: ReadSession, *, months: int) -> datetime:
    """Return the time at which history begins by the setting: the start of a month in UTC.

    Args:
        session: The session.
        months: The number of months that are kept before the current one, 1 or more.
    """
    earliest: datetime = (await session.execute(_RETENTION_START, {"months": months})).scalar_one()
    return earliest


async def months_to_drop(session: ReadSession, earliest: datetime) -> list[date]:
    """Return the first days of the months before a time that are not dropped, oldest first."""
    rows = await session.execute(_MONTHS_TO_DROP, {"earliest": earliest})
    return list(rows.scalars().all())


async def prune_history(session: WriteSession, earliest: datetime) -> int:
    """Set the beginning of history, and delete the kept joins on which no later time depends.

    Returns:
        The number of deleted entries. 0 if history begins at this time or later already.

    Raises:
        NotReady: leaves before this time are not recorded yet, or not added to the sums of member
            counts.
        TimedOut: other transactions use history.
    """
    with _translate_not_ready():
        return int((await session.execute(_PRUNE, {"earliest": earliest})).scalar_one())


async def drop_month(session: WriteSession, first_day: date) -> int | None:
    """Drop the history of a month before the beginning of history, except the kept joins.

    Returns:
        The number of kept joins; None if the month was dropped already.

    Raises:
        NotReady, TimedOut: as for `prune_history`.
    """
    with _translate_not_ready():
        kept: int | None = await session.scalar(_DROP_MONTH, {"first_day": first_day})
        return kept


@contextlib.contextmanager
def _translate_not_ready() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == NOT_READY_CODE:
            raise NotReady(str(driver_error(error))) from error
        raise
