"""Rules and SQL of idempotency keys."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.database_errors import TIMEOUT_CODES, sqlstate
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import IdempotencyKeyInUse
from segmentql.idempotency.records import StoredCall

RETENTION_HOURS: Final = 24
"""How long a key and its result are stored."""

DELETE_ROWS: Final = 1000
"""The maximum number of rows that one transaction deletes."""

MAX_WAITING: Final = 2
"""The maximum number of transactions that wait in the database for a mutation with the same key.

Each of them uses a connection. They are in other processes than the mutation, because calls in one
process join the first one before they take a connection."""

MAX_CLAIM_ATTEMPTS: Final = 3
"""The number of attempts if a key expires or is deleted between the two statements of a claim."""

SLOT_LOCK_CLASS: Final = 7010
"""The class of the advisory locks of the first slot. Each further slot has the next class."""

_TAKE_SLOT: Final = " ".join(
    f"WHEN pg_try_advisory_xact_lock({SLOT_LOCK_CLASS + slot}, number) THEN true"
    for slot in range(1 + MAX_WAITING)
)
"""The conditions that take the first free slot of a key: one for the mutation that runs, and one
for each that waits. Keys with the same hash share their slots."""

# A key that has expired and is not deleted yet is claimed like a new one. The insertion waits for
# a transaction that has claimed the same key.
_CLAIM = text(f"""
WITH slot AS MATERIALIZED (
    SELECT CASE {_TAKE_SLOT} ELSE false END AS is_free
    FROM (
        SELECT hashtext(coalesce(CAST(:api_key_id AS text), '') || ' ' || :key) AS number OFFSET 0
    ) AS hashed
),
claimed AS (
    INSERT INTO idempotency_keys AS k (api_key_id, key, fingerprint, created_at)
    SELECT CAST(:api_key_id AS text), :key, :fingerprint, clock_timestamp()
    FROM slot WHERE is_free
    ON CONFLICT (key, api_key_id) DO UPDATE SET
        fingerprint = excluded.fingerprint, result = NULL, created_at = clock_timestamp()
    WHERE k.created_at <= clock_timestamp() - make_interval(hours => {RETENTION_HOURS})
    RETURNING id
)
SELECT (SELECT is_free FROM slot) AS is_free, (SELECT id FROM claimed) AS claim_id
""")

_FIND = text(f"""
SELECT fingerprint, CAST(result AS text) AS result FROM idempotency_keys
WHERE key = :key AND api_key_id IS NOT DISTINCT FROM CAST(:api_key_id AS text)
  AND created_at > clock_timestamp() - make_interval(hours => {RETENTION_HOURS})
""")

_COMPLETE = text("""
UPDATE idempotency_keys SET result = CAST(CAST(:result AS text) AS jsonb) WHERE id = :claim_id
""")

# A subquery, because an index cannot be searched for the value of a volatile function.
_EXPIRED: Final = f"""
created_at <= (SELECT clock_timestamp() - make_interval(hours => {RETENTION_HOURS}))
"""

_HAS_EXPIRED = text(f"SELECT EXISTS (SELECT FROM idempotency_keys WHERE {_EXPIRED})")

# The array is computed once. A subquery after IN may be executed for each row, and would then lock
# other rows each time, so that more than the limit would be deleted.
_DELETE_EXPIRED = text(f"""
DELETE FROM idempotency_keys WHERE id = ANY (ARRAY(
    SELECT id FROM idempotency_keys WHERE {_EXPIRED}
    ORDER BY created_at LIMIT {DELETE_ROWS} FOR UPDATE SKIP LOCKED
))
""")


async def claim_key(
    session: WriteSession, api_key_id: str | None, key: str, fingerprint: bytes
) -> int | StoredCall:
    """Claim a key for the mutation of this transaction. It must be the first statement.

    It waits while another transaction has claimed the key. If this transaction is rolled back, the
    key is free again.

    Args:
        session: The session.
        api_key_id: The public part of the API key that sent the key; None if authentication is off.
        key: The key.
        fingerprint: The fingerprint of the mutation and its input.

    Returns:
        The id of the claim, for `store_result`; or the earlier mutation with this key, whose
        fingerprint may be another one.

    Raises:
        IdempotencyKeyInUse: `MAX_WAITING` transactions wait already, or this one has waited too
            long.
    """
    values = {"api_key_id": api_key_id, "key": key, "fingerprint": fingerprint}
    for _ in range(MAX_CLAIM_ATTEMPTS):
        try:
            row = (await session.execute(_CLAIM, values)).one()
        except DBAPIError as error:
            if sqlstate(error) in TIMEOUT_CODES:
                raise IdempotencyKeyInUse from error
            raise
        if row.claim_id is not None:
            return int(row.claim_id)
        stored = await find_call(session, api_key_id, key)
        if stored:
            return stored
        if not row.is_free:
            raise IdempotencyKeyInUse
    raise AssertionError("the key expired at every attempt")


async def store_result(session: WriteSession, claim_id: int, result: Mapping[str, Any]) -> None:
    """Store the result of the mutation that has claimed a key in this transaction."""
    values = {"claim_id": claim_id, "result": orjson.dumps(result).decode()}
    await session.execute(_COMPLETE, values)


async def find_call(
    session: ReadSession | WriteSession, api_key_id: str | None, key: str
) -> StoredCall | None:
    """Return the committed mutation with a key, unless the key has expired."""
    values = {"api_key_id": api_key_id, "key": key}
    row = (await session.execute(_FIND, values)).one_or_none()
    return StoredCall(row.fingerprint, orjson.loads(row.result)) if row else None


async def has_expired_keys(session: ReadSession) -> bool:
    """Return whether some keys have expired and are not deleted yet."""
    return bool(await session.scalar(_HAS_EXPIRED))


async def delete_expired_keys(session: WriteSession) -> int:
    """Delete up to `DELETE_ROWS` expired keys; return their number."""
    return await session.count_affected(_DELETE_EXPIRED)
