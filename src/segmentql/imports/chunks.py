"""Applying an import: one chunk of users for each transaction.

A chunk commits its changes, its outcomes, the counts and the position together, under the lock of
the import's row. So two chunks of one import never overlap, and after a crash the next worker
continues with the next chunk. Each outcome is decided again, because the users, the memberships and
the exclusions may have changed since the forecast.
"""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.imports.chunk_changes import change_members
from segmentql.imports.chunk_users import read_chunk, store_chunk
from segmentql.imports.completion import finish
from segmentql.imports.locks import lock_chunk
from segmentql.imports.reads import IMPORT_COLUMNS, import_record
from segmentql.imports.records import ImportRecord
from segmentql.imports.safeguards import max_removals
from segmentql.imports.schedule import IS_NEXT_TO_APPLY
from segmentql.tables import ImportStatus

CHUNK_USERS: Final = 5000
"""The maximum number of users in one transaction, about 0.1 s, so that locks are short."""

SEGMENT_DELETED: Final = "the segment was deleted"

_LOCK = text(f"""
SELECT {IMPORT_COLUMNS} FROM imports i JOIN segments s ON s.id = i.segment_id
WHERE i.id = :import_id AND i.status = 'APPLYING' AND {IS_NEXT_TO_APPLY}
FOR NO KEY UPDATE OF i
""")


class TooManyRemovals(Exception):
    """A chunk would remove more members than the import may remove. It changes nothing."""

    def __init__(self, allowed: int) -> None:
        """Create the exception with the maximum number of removals."""
        super().__init__(
            f"the segment would lose more than {allowed} members, the number that is allowed; the"
            " other rows were not applied"
        )


async def apply_chunk(session: WriteSession, import_id: int) -> bool:
    """Apply the next users of an import, if it is the import's turn.

    Returns:
        Whether there may be more users to apply. False if another worker applies a chunk now,
        because that worker continues.

    Raises:
        TooManyRemovals: the import would remove more members than it may remove.
        MutationRejected: `expiresAt` of the import has passed.
    """
    if not await lock_chunk(session, import_id):
        return False
    # Only short transactions hold the row now, such as a mutation that is rejected.
    row = (await session.execute(_LOCK, {"import_id": import_id})).one_or_none()
    if row is None:
        return False
    record = import_record(row)
    users = await read_chunk(session, record, CHUNK_USERS)
    if not users:
        await finish(session, record, ImportStatus.COMPLETED)
        return False
    applied = await change_members(session, record, users)
    if applied is None:
        await finish(session, record, ImportStatus.FAILED, failure=SEGMENT_DELETED)
        return False
    allowed = await _check_removals(session, record, applied.removed)
    await store_chunk(session, record, users, applied, allowed_removals=allowed)
    return True


async def _check_removals(session: WriteSession, record: ImportRecord, removed: int) -> int | None:
    """Check the removals of the import with those of a chunk, which is applied but not committed.

    The forecast was allowed. More members can leave if listed users joined since, or if the
    segment's rollout has ended.

    Returns:
        The maximum number of removals, if it is known by now.
    """
    removals = record.removed_users + removed
    if not removed or removals <= (record.removals or 0):
        return record.allowed_removals
    allowed = record.allowed_removals
    if allowed is None:
        allowed = await max_removals(session, record, removals)
    if removals > allowed:
        raise TooManyRemovals(allowed)
    return allowed
