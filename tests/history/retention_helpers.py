"""Months of history that tests drop, and the rows that remain."""

from datetime import UTC, date, datetime
from functools import partial
from typing import Final

from segmentql.adapters.database import Database
from segmentql.history import retention
from segmentql.history.actors import roll_up_member_counts
from segmentql.memberships import expiry
from tests.conftest import Sql

FIRST_MONTH: Final = date(2024, 1, 1)
MONTHS: Final = 4
"""The number of months from the first one that have a partition."""

_DROP_PARTITIONS = """
DO $$
DECLARE
    partition text;
BEGIN
    FOR partition IN
        SELECT relname FROM pg_class
        WHERE relkind = 'r' AND (relname LIKE 'history\\_kept%' OR relname LIKE 'history\\_2024%')
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
    END LOOP;
END
$$
"""


def start_of(month: int) -> datetime:
    """Return the start of a month of 2024."""
    return datetime(2024, month, 1, tzinfo=UTC)


async def create_months(sql: Sql) -> None:
    """Create the months' partitions again, all with their history."""
    await sql.execute(_DROP_PARTITIONS)
    await sql.fetchval("SELECT make_history_partitions($1, $2)", FIRST_MONTH, MONTHS)


async def drop_partitions(sql: Sql) -> None:
    """Drop the months' partitions and those of kept joins."""
    await sql.execute(_DROP_PARTITIONS)


async def partitions(sql: Sql) -> dict[str, int]:
    """Return the partitions of 2024 with their numbers of rows."""
    names = await sql.fetch(
        """
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'history'::regclass AND relname ~ '2024' ORDER BY 1
        """
    )
    return {name: await sql.fetchval(f"SELECT count(*) FROM {name}") for (name,) in names}


async def record_and_roll_up(database: Database) -> None:
    """Do the work of workers that precedes the retention."""
    await database.transaction(expiry.expire_due)
    async with database.read() as session:
        deleted = await expiry.segments_with_unrecorded_leaves(session)
    for segment_id in deleted:
        while await database.transaction(
            partial(expiry.record_segment_leaves, segment_id=segment_id)
        ):
            pass
    await roll_up_member_counts(database)


async def drop_before(database: Database, earliest: datetime) -> list[int | None]:
    """Drop the history before the start of a month; return the kept joins of each month."""
    await database.transaction(partial(retention.prune_history, earliest=earliest))
    async with database.read() as session:
        months = await retention.months_to_drop(session, earliest)
    return [
        await database.transaction(partial(retention.drop_month, first_day=month))
        for month in months
    ]
