"""The settled position of history.

Entries take their positions in order, but their transactions commit in any order. So an entry with
a lower position may appear after one with a higher position. A position is settled when every entry
up to it is visible or will never be.
"""

import asyncio
import time
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import Database

WAIT_SECONDS: Final = 30
"""How long `settled_position` waits for the transactions that are writing history."""

POLL_INTERVAL_SECONDS: Final = 0.05

_LAST_POSITION = text("""
SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM history_position_seq
""")

# The statement that takes a position has locked `history` before. The lock lasts until the end of
# the transaction. A prepared transaction has no pid.
_INFLIGHT_WRITES = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = CAST('history' AS regclass) AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND mode = 'RowExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()
""")


async def settled_position(database: Database) -> int | None:
    """Return a settled position that is not below any entry visible at the call.

    It waits for the transactions that are writing history now. It returns None if one of them does
    not end within `WAIT_SECONDS`.
    """
    async with database.read() as session:
        position: int = (await session.execute(_LAST_POSITION)).scalar_one()
        inflight = set((await session.execute(_INFLIGHT_WRITES)).scalars())
    deadline = time.monotonic() + WAIT_SECONDS
    while inflight and time.monotonic() < deadline:
        await asyncio.sleep(POLL_INTERVAL_SECONDS)
        async with database.read() as session:
            inflight &= set((await session.execute(_INFLIGHT_WRITES)).scalars())
    return None if inflight else position
