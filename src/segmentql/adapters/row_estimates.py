"""Estimates of the number of rows of large tables."""

from typing import Final, Literal

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession

EXACT_COUNT_LIMIT: Final = 100_000
"""Counting this many rows takes about 10 ms."""

# The planner's estimate: the rows per page at the last ANALYZE, times the current pages.
_ESTIMATE_ROW_COUNT: Final = """
SELECT CASE WHEN counted < {limit} THEN counted ELSE greatest(counted, estimated) END
FROM (
    SELECT (SELECT count(*) FROM (SELECT FROM {table} LIMIT {limit}) AS first) AS counted,
        CAST(reltuples / greatest(relpages, 1) * pg_relation_size(oid)
            / CAST(current_setting('block_size') AS integer) AS bigint) AS estimated
    FROM pg_class WHERE oid = CAST('{table}' AS regclass)
) AS counts
"""


async def estimate_row_count(session: ReadSession, table: Literal["users", "memberships"]) -> int:
    """Return the number of rows of a table.

    The number is exact up to `EXACT_COUNT_LIMIT`, and the planner's estimate above.
    """
    statement = text(_ESTIMATE_ROW_COUNT.format(table=table, limit=EXACT_COUNT_LIMIT))
    return int((await session.execute(statement)).scalar_one())
