"""The advisory locks of imports, which transactions take before all other locks.

A transaction that erases keys locks users before imports, and a chunk locks its import before
users. So they exclude each other by `(7006, 0)`, which a chunk takes shared. Two chunks of one
import exclude each other by `(7007, the import's id)`.
"""

from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession

ERASURE_LOCK: Final = "7006, 0"
CHUNK_LOCK_CLASS: Final = 7007

_LOCK_ERASURE = text(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})")

_LOCK_CHUNK = text(f"""
SELECT pg_try_advisory_xact_lock(
        {CHUNK_LOCK_CLASS}, CAST(CAST(:import_id AS bigint) % 2147483647 AS integer)) AS is_locked,
    pg_advisory_xact_lock_shared({ERASURE_LOCK})
""")


async def lock_erasure_of_keys(session: WriteSession) -> None:
    """Wait for the chunks in progress, and let no other begin until the transaction ends.

    A transaction that erases keys calls it before it locks anything else.
    """
    await session.execute(_LOCK_ERASURE)


async def lock_chunk(session: WriteSession, import_id: int) -> bool:
    """Let no other worker apply a chunk of the import until the transaction ends.

    Returns:
        False if another worker does so now.
    """
    is_locked: bool = (await session.execute(_LOCK_CHUNK, {"import_id": import_id})).scalar_one()
    return is_locked
