"""Making, listing and revoking API keys."""

import hashlib
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql import validators
from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.errors import ApiKeyNotFound, MutationRejected
from segmentql.principal import Principal
from segmentql.tables import Role

ID_CHARACTERS: Final = string.ascii_lowercase + string.digits
ID_LENGTH: Final = 12
"""62 bits: enough that no two keys ever share an id, which is all that it is for."""

SECRET_BYTES: Final = 32
FIRST_NAME: Final = "first"
"""What the key of `SEGMENTQL_FIRST_KEY` is called."""

KEY_COLUMNS: Final = """
k.number AS key_number, k.public_id, k.name, k.role, k.created_at, k.created_by, k.last_used_at,
k.revoked_at
"""
"""What people see of a key, in every statement that reads keys as `k`."""

_CREATE = text(f"""
INSERT INTO api_keys AS k (public_id, name, role, secret_hash, created_at, created_by)
VALUES (:public_id, :name, CAST(:role AS key_role), :secret_hash, clock_timestamp(), :actor)
RETURNING {KEY_COLUMNS}
""")

_ENSURE = text("""
INSERT INTO api_keys (public_id, name, role, secret_hash, created_at)
VALUES (:public_id, :name, 'ADMIN', :secret_hash, clock_timestamp())
ON CONFLICT (public_id) DO NOTHING
RETURNING number
""")

_REVOKE = text(f"""
UPDATE api_keys k SET revoked_at = greatest(clock_timestamp(), created_at), revoked_by = :actor
WHERE public_id = :public_id AND revoked_at IS NULL
RETURNING {KEY_COLUMNS}
""")

_BY_PUBLIC_ID = text(f"SELECT {KEY_COLUMNS} FROM api_keys k WHERE public_id = :public_id")

_PAGE = text(f"""
SELECT {KEY_COLUMNS} FROM api_keys k WHERE k.number < :before ORDER BY k.number DESC LIMIT :rows
""")

_STORED = text("""
SELECT public_id, name, role, secret_hash, revoked_at IS NOT NULL AS is_revoked
FROM api_keys WHERE public_id = ANY(:public_ids)
""")

# Not those that are live: of ten thousand known keys hardly one is revoked.
_GONE = text("""
SELECT known.public_id FROM unnest(CAST(:public_ids AS text[])) AS known (public_id)
WHERE NOT EXISTS (
    SELECT FROM api_keys k WHERE k.public_id = known.public_id AND k.revoked_at IS NULL
)
""")

# Locked in order, for other processes note the same keys.
_NOTE_USES = text("""
WITH used AS MATERIALIZED (
    SELECT number FROM api_keys WHERE public_id = ANY(:public_ids)
    ORDER BY number FOR NO KEY UPDATE
)
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, clock_timestamp())
FROM used WHERE k.number = used.number
""")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as a process checks it."""

    principal: Principal
    secret_hash: bytes
    is_revoked: bool


def hash_of(secret: bytes) -> bytes:
    """What is stored of a secret; it has 256 random bits, so that a fast hash will do."""
    return hashlib.sha256(secret).digest()


async def create_key(
    session: WriteSession, *, name: str, role: Role, actor: str | None
) -> tuple[Row[Any], str]:
    """Make a key; its row, and the whole key, which nobody can read again."""
    public_id = "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))
    secret = secrets.token_hex(SECRET_BYTES)
    row = await session.execute(
        _CREATE,
        {
            "public_id": public_id,
            "name": name,
            "role": role.value,
            "secret_hash": hash_of(secret.encode()),
            "actor": actor,
        },
    )
    return row.one(), f"sgql_{public_id}_{secret}"


async def ensure_first_key(session: WriteSession, token: str) -> bool:
    """Store an ADMIN key of somebody's own making, unless one of its id was ever stored.

    One that was revoked stays so. Returns whether it was stored now.
    """
    public_id, secret = validators.key_token(token)
    given = {
        "public_id": public_id,
        "name": FIRST_NAME,
        "secret_hash": hash_of(secret.encode()),
    }
    return (await session.execute(_ENSURE, given)).one_or_none() is not None


async def revoke_key(session: WriteSession, public_id: str, *, actor: str | None) -> Row[Any]:
    """Revoke a key for good; one that was revoked before stays as it is.

    Raises:
        Refused: no such key.
    """
    given = {"public_id": public_id, "actor": actor}
    revoked = (await session.execute(_REVOKE, given)).one_or_none()
    if revoked:
        return revoked
    there = (await session.execute(_BY_PUBLIC_ID, {"public_id": public_id})).one_or_none()
    if there is None:
        raise MutationRejected(ApiKeyNotFound(("id",), public_id))
    return there


async def key_page(session: ReadSession, *, before: int, rows: int) -> Sequence[Row[Any]]:
    """Read keys, the newest first, those made before key number `before`."""
    return (await session.execute(_PAGE, {"before": before, "rows": rows})).all()


async def stored_keys(session: ReadSession, public_ids: Collection[str]) -> Mapping[str, StoredKey]:
    """Read keys to check them by their public parts; those that do not exist: absent."""
    rows = await session.execute(_STORED, {"public_ids": list(public_ids)})
    return {
        row.public_id: StoredKey(
            Principal(row.public_id, row.name, Role(row.role)), row.secret_hash, row.is_revoked
        )
        for row in rows
    }


async def revoked_keys(session: ReadSession, public_ids: Collection[str]) -> Sequence[str]:
    """Which of these keys are revoked, or not there."""
    return (await session.execute(_GONE, {"public_ids": list(public_ids)})).scalars().all()


async def record_last_used(session: WriteSession, public_ids: Collection[str]) -> None:
    """Note that these keys are used now; keys that are not there are passed over."""
    await session.execute(_NOTE_USES, {"public_ids": list(public_ids)})
