"""The monthly partitions of history."""

from datetime import date
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession

MONTHS_AHEAD: Final = 3
"""The number of monthly partitions that exist beyond the current month."""

_MAKE_PARTITIONS = text("SELECT make_history_partitions(CAST(:first AS date), :months)")
_MAKE_PARTITIONS_AHEAD = text(
    "SELECT make_history_partitions(CAST(now() AT TIME ZONE 'UTC' AS date), :months)"
)


async def create_partitions(session: WriteSession, first_month: date, months: int) -> int:
    """Create the missing partitions of history for `months` months in UTC.

    Rows of these months in the DEFAULT partition are moved to the new partitions.

    Returns:
        The number of created partitions.
    """
    values = {"first": first_month, "months": months}
    return int((await session.execute(_MAKE_PARTITIONS, values)).scalar_one())


async def create_future_partitions(session: WriteSession) -> int:
    """Create the missing partitions of the current month and the next `MONTHS_AHEAD` months."""
    values = {"months": 1 + MONTHS_AHEAD}
    return int((await session.execute(_MAKE_PARTITIONS_AHEAD, values)).scalar_one())
