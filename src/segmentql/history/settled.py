"""The settled position of history: up to it, no row can appear any more.

Each row of history has a position from a sequence. Transactions commit in another order than they
take positions, so the newest row is not the end of what a reader may read. A reader calls these
functions in order:

1. `read_last_position` reads the last number of the sequence.
2. `read_holders` then reads the transactions that hold the lock for inserts into `history`. Only
   these may still commit rows up to that number. It is called again until they all have ended.
3. `read_newest_row` then reads the newest row up to that number. The row and all rows before it are
   settled.

`wait_for_settled_row` does all of this once, with a time limit, and `tracker.py` does it for all
requests of a process. Decision 16 has the proof. The rows must be read in a later statement, on the
primary, and not in a REPEATABLE READ transaction that began earlier.
"""

import asyncio
import base64
import binascii
import enum
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import Unavailable
from segmentql.history.retention import DROPPED_POSITION

_ENCODED_PREFIX: Final = "chg_"
_ENCODED: Final = re.compile(r"([0-9]{1,19}):([0-9a-f]{16})?", re.ASCII)

POLL_SECONDS: Final = 0.03
"""The pause between two reads of the lock holders."""

# A number can be given out again after a crash, see decision 16. The start of the server changes
# with each restart. The reset of the statistics changes with each crash, even if the server only
# restarts its processes. The ids change if the database is created again.
INCARNATION: Final = """
concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
    (SELECT extract(epoch FROM stats_reset) FROM pg_stat_checkpointer),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    CAST(CAST('history_position_seq' AS regclass) AS oid)) AS incarnation
"""
"""SQL column: a text that differs after the server has restarted or lost its memory."""

# pg_sequence_last_value() would return NULL, not an error, to a role without the privilege.
_LAST_POSITION: Final = text(f"""
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS position,
    pg_is_in_recovery() AS is_standby, {INCARNATION}
FROM history_position_seq
""")

# An INSERT locks the table before it takes a position, and the lock is released after the commit is
# visible. A prepared transaction has no pid. It always counts, because the documentation does not
# say which virtual transaction it has, and a restart changes it.
_HOLDERS: Final = text(f"""
SELECT {INCARNATION}, ARRAY(
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'relation' AND relation = CAST('history' AS regclass)
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode = 'RowExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND (CAST(:holders AS text[]) IS NULL OR virtualtransaction = ANY(:holders) OR pid IS NULL)
) AS holders
""")

_NEWEST_ROW: Final = text(f"""
SELECT {INCARNATION}, {DROPPED_POSITION} AS dropped_position, newest.*
FROM (SELECT 1) AS one LEFT JOIN LATERAL (
    SELECT position, membership_id, operation, recorded_at FROM history
    WHERE position <= :position ORDER BY position DESC LIMIT 1
) AS newest ON true
""")

_ROWS_AT: Final = text(f"""
SELECT {DROPPED_POSITION} AS dropped_position, h.position, h.membership_id, h.operation,
    h.recorded_at
FROM (SELECT 1) AS one LEFT JOIN history h ON h.position = :position
""")

_IS_OLDER_THAN_ALL: Final = text("""
SELECT EXISTS (SELECT FROM history)
    AND NOT EXISTS (SELECT FROM history WHERE position < :position)
""")


@dataclass(frozen=True, slots=True)
class HistoryCursor:
    """A position in the order of recording: after the row that it names.

    It names a row, and not a number of the sequence, because a crash can lose numbers that no
    transaction committed. The next transactions then take them again.
    """

    position: int
    """The position of the row; 0 or the dropped position before the first row."""

    fingerprint: str
    """Distinguishes the row from another row that has its position after a restore."""

    @classmethod
    def of_row(
        cls, position: int, membership_id: int, operation: str, recorded_at: datetime
    ) -> "HistoryCursor":
        """Return the cursor of a row. No update of history changes these columns."""
        row = f"{membership_id} {operation} {recorded_at.astimezone(UTC).isoformat()}"
        return cls(position, hashlib.blake2b(row.encode(), digest_size=8).hexdigest())

    @classmethod
    def decode(cls, text: str) -> "HistoryCursor":
        """Return the cursor of which `text` is the encoded form.

        Raises:
            ValueError: `text` is not the encoded form of a cursor.
        """
        try:
            plain = base64.urlsafe_b64decode(text.removeprefix(_ENCODED_PREFIX)).decode("ascii")
        except (binascii.Error, UnicodeError, ValueError) as error:
            raise ValueError("not a cursor of changes") from error
        match = _ENCODED.fullmatch(plain)
        cursor = cls(int(match[1]), match[2] or "") if match else BEFORE_FIRST_ROW
        # Only one text is the form of each cursor, so clients can compare texts.
        if not match or cursor.encode() != text:
            raise ValueError("not a cursor of changes")
        return cursor

    def encode(self) -> str:
        """Return the opaque text by which clients know the cursor."""
        plain = f"{self.position}:{self.fingerprint}"
        return _ENCODED_PREFIX + base64.urlsafe_b64encode(plain.encode()).decode()


BEFORE_FIRST_ROW: Final = HistoryCursor(0, "")


def first_cursor(dropped_position: int) -> HistoryCursor:
    """Return the cursor before the first row that was not dropped.

    Rows up to the dropped position may still exist, because joins of active memberships are kept.
    No reader reads them, because other rows among them are missing.

    Args:
        dropped_position: The position up to which rows may have been dropped; 0 if none were.
    """
    return HistoryCursor(dropped_position, "")


class CursorState(enum.Enum):
    """Whether a reader can continue at a cursor."""

    VALID = "VALID"
    EXPIRED = "EXPIRED"
    """The row, or a row after it, was dropped because it is old."""

    RESET = "RESET"
    """The row is missing or differs: the database has lost history that the reader has read."""


@dataclass(frozen=True, slots=True)
class LastPosition:
    """The last number of the sequence at a time, in one incarnation of the database."""

    position: int
    incarnation: str


class IncarnationChanged(Exception):
    """The server has restarted, or the database was created again, since `LastPosition` was read.

    Other transactions may have the same numbers and the same virtual transactions now.
    """


async def read_last_position(session: ReadSession) -> LastPosition:
    """Return the last number that the sequence of positions has given out, 0 if none.

    Raises:
        Unavailable: the server is a standby, which does not know the locks of the primary.
    """
    row = (await session.execute(_LAST_POSITION)).one()
    if row.is_standby:
        raise Unavailable
    return LastPosition(row.position, row.incarnation)


async def read_holders(
    session: ReadSession, last: LastPosition, *, among: frozenset[str] | None = None
) -> frozenset[str]:
    """Return the transactions that may still commit rows up to `last`.

    Args:
        among: The result of the previous call for the same `last`; None at the first call.

    Raises:
        IncarnationChanged: `last` has no meaning any more.
    """
    holders = None if among is None else sorted(among)
    row = (await session.execute(_HOLDERS, {"holders": holders})).one()
    _check_incarnation(row.incarnation, last)
    return frozenset(row.holders)


async def read_newest_row(session: ReadSession, last: LastPosition) -> HistoryCursor:
    """Return the cursor of the newest row up to `last`, after all holders have ended.

    Raises:
        IncarnationChanged: `last` has no meaning any more.
    """
    row = (await session.execute(_NEWEST_ROW, {"position": last.position})).one()
    _check_incarnation(row.incarnation, last)
    if row.position is None or row.position < row.dropped_position:
        return first_cursor(row.dropped_position)
    return HistoryCursor.of_row(row.position, row.membership_id, row.operation, row.recorded_at)


async def wait_for_settled_row(database: Database, *, seconds: float) -> HistoryCursor | None:
    """Return a settled row that is not before any row committed before the call.

    While transactions are pending, this holds no connection.

    Args:
        seconds: The maximum time to wait for transactions.

    Returns:
        The cursor, or None if the transactions did not end in time or the server restarted.

    Raises:
        Unavailable, TimedOut: the database cannot be read.
    """
    deadline = time.monotonic() + seconds
    try:
        async with database.read() as session:
            last = await read_last_position(session)
            holders = await read_holders(session, last)
        while holders:
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(POLL_SECONDS)
            async with database.read() as session:
                holders = await read_holders(session, last, among=holders)
        async with database.read() as session:
            return await read_newest_row(session, last)
    except IncarnationChanged:
        return None


async def check_cursor(session: ReadSession, cursor: HistoryCursor) -> CursorState:
    """Return whether a reader that has stored the cursor can continue after it."""
    found = (await session.execute(_ROWS_AT, {"position": cursor.position})).all()
    dropped_position = found[0].dropped_position
    if cursor.position < dropped_position:
        return CursorState.EXPIRED
    if cursor.position == dropped_position:
        return CursorState.VALID  # the row may have been dropped, and no row after it was
    rows = [HistoryCursor.of_row(*row[1:]) for row in found if row.position is not None]
    if rows == [cursor]:
        return CursorState.VALID
    if not rows and await session.scalar(_IS_OLDER_THAN_ALL, {"position": cursor.position}):
        return CursorState.EXPIRED
    return CursorState.RESET


def _check_incarnation(incarnation: str, last: LastPosition) -> None:
    if incarnation != last.incarnation:
        raise IncarnationChanged
