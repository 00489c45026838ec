"""Rules and SQL of API keys: creation, lists and revocation."""

import hashlib
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql import validators
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction, AuditState
from segmentql.errors import ApiKeyNotFound, MutationRejected
from segmentql.keys.records import ApiKeyRecord, StoredKey
from segmentql.principal import NO_ACTOR, Actor, Principal
from segmentql.tables import Role

ID_CHARACTERS: Final = string.ascii_lowercase + string.digits
ID_LENGTH: Final = 12
"""The length of a public id: 62 random bits, so collisions are negligible."""

SECRET_BYTES: Final = 32
FIRST_KEY_NAME: Final = "first"
"""The name of the key in `SEGMENTQL_FIRST_KEY`."""

KEY_COLUMNS: Final = """
k.number AS key_number, k.public_id, k.name, k.role, k.created_at, k.created_by, k.last_used_at,
k.revoked_at
"""
"""The columns of `_key_record`, for statements that read keys as `k`."""

_CREATE = text(f"""
INSERT INTO api_keys AS k (public_id, name, role, secret_hash, created_at, created_by)
VALUES (:public_id, :name, CAST(:role AS key_role), :secret_hash, clock_timestamp(), :actor)
RETURNING {KEY_COLUMNS}
""")

_INSERT_FIRST_KEY = text(f"""
INSERT INTO api_keys AS k (public_id, name, role, secret_hash, created_at)
VALUES (:public_id, :name, 'ADMIN', :secret_hash, clock_timestamp())
ON CONFLICT (public_id) DO NOTHING
RETURNING {KEY_COLUMNS}
""")

_REVOKE = text(f"""
UPDATE api_keys k SET revoked_at = greatest(clock_timestamp(), created_at), revoked_by = :actor
WHERE public_id = :public_id AND revoked_at IS NULL
RETURNING {KEY_COLUMNS}
""")

_BY_PUBLIC_ID = text(f"SELECT {KEY_COLUMNS} FROM api_keys k WHERE public_id = :public_id")

_BY_NUMBERS = text(f"SELECT {KEY_COLUMNS} FROM api_keys k WHERE k.number = ANY(:numbers)")

_BY_PUBLIC_IDS = text(f"""
SELECT {KEY_COLUMNS} FROM api_keys k WHERE k.public_id = ANY(:public_ids)
""")

_PAGE = text(f"""
SELECT {KEY_COLUMNS} FROM api_keys k WHERE k.number < :before ORDER BY k.number DESC LIMIT :rows
""")

_STORED = text("""
SELECT public_id, name, role, secret_hash, revoked_at IS NOT NULL AS is_revoked
FROM api_keys WHERE public_id = ANY(:public_ids)
""")

# Returns the revoked keys, not the live ones, because few of ten thousand cached keys are revoked.
_REVOKED = text("""
SELECT known.public_id FROM unnest(CAST(:public_ids AS text[])) AS known (public_id)
WHERE NOT EXISTS (
    SELECT FROM api_keys k WHERE k.public_id = known.public_id AND k.revoked_at IS NULL
)
""")

# Locks the rows in order, because other processes update the same keys.
_RECORD_LAST_USED = text("""
WITH used AS MATERIALIZED (
    SELECT number FROM api_keys WHERE public_id = ANY(:public_ids)
    ORDER BY number FOR NO KEY UPDATE
)
UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, clock_timestamp())
FROM used WHERE k.number = used.number
""")


def hash_secret(secret: bytes) -> bytes:
    """Return the hash of a secret. A fast hash is enough, because a secret has 256 random bits."""
    return hashlib.sha256(secret).digest()


def _key_record(row: Row[Any]) -> ApiKeyRecord:
    return ApiKeyRecord(
        number=row.key_number,
        public_id=row.public_id,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        created_by=row.created_by,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


async def create_key(
    session: WriteSession, *, name: str, role: Role, actor: Actor
) -> tuple[ApiKeyRecord, str]:
    """Create a key.

    Returns:
        The record, and the key with its secret, which is not stored.
    """
    public_id = "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))
    secret = secrets.token_hex(SECRET_BYTES)
    created = await session.execute(
        _CREATE,
        {
            "public_id": public_id,
            "name": name,
            "role": role.value,
            "secret_hash": hash_secret(secret.encode()),
            "actor": actor.name,
        },
    )
    key = _key_record(created.one())
    await _record_creation(session, key, actor=actor)
    return key, f"sgql_{public_id}_{secret}"


async def _record_creation(session: WriteSession, key: ApiKeyRecord, *, actor: Actor) -> None:
    await audit.record(
        session,
        actor=actor,
        action=AuditAction.API_KEY_CREATED,
        target=key.global_id,
        after=_audit_state(key),
    )


def _audit_state(key: ApiKeyRecord) -> AuditState:
    return {"name": key.name, "role": key.role}


async def ensure_first_key(session: WriteSession, token: str) -> bool:
    """Store a key that the operator has chosen, with the role ADMIN.

    If a key with its id is already stored, this does nothing, even if that key is revoked.

    Returns:
        Whether this call stored the key.
    """
    public_id, secret = validators.key_token(token)
    values = {
        "public_id": public_id,
        "name": FIRST_KEY_NAME,
        "secret_hash": hash_secret(secret.encode()),
    }
    inserted = (await session.execute(_INSERT_FIRST_KEY, values)).one_or_none()
    if inserted is None:
        return False
    await _record_creation(session, _key_record(inserted), actor=NO_ACTOR)
    return True


async def revoke_key(session: WriteSession, public_id: str, *, actor: Actor) -> ApiKeyRecord:
    """Revoke a key permanently. If the key is already revoked, this does nothing.

    Raises:
        MutationRejected: the key does not exist.
    """
    values = {"public_id": public_id, "actor": actor.name}
    revoked = (await session.execute(_REVOKE, values)).one_or_none()
    if revoked:
        key = _key_record(revoked)
        await audit.record(
            session,
            actor=actor,
            action=AuditAction.API_KEY_REVOKED,
            target=key.global_id,
            before=_audit_state(key),
        )
        return key
    existing = (await session.execute(_BY_PUBLIC_ID, {"public_id": public_id})).one_or_none()
    if existing is None:
        raise MutationRejected(ApiKeyNotFound(("id",), public_id))
    return _key_record(existing)


async def key_page(session: ReadSession, *, before: int, rows: int) -> list[ApiKeyRecord]:
    """Return up to `rows` keys with numbers below `before`, newest first."""
    page = await session.execute(_PAGE, {"before": before, "rows": rows})
    return [_key_record(row) for row in page]


async def keys_by_number(session: ReadSession, numbers: Sequence[int]) -> dict[int, ApiKeyRecord]:
    """Return the keys with these numbers."""
    rows = await session.execute(_BY_NUMBERS, {"numbers": list(numbers)})
    return {row.key_number: _key_record(row) for row in rows}


async def keys_by_public_id(
    session: ReadSession, public_ids: Sequence[str]
) -> dict[str, ApiKeyRecord]:
    """Return the keys with these public ids."""
    rows = await session.execute(_BY_PUBLIC_IDS, {"public_ids": list(public_ids)})
    return {row.public_id: _key_record(row) for row in rows}


async def stored_keys(session: ReadSession, public_ids: Collection[str]) -> Mapping[str, StoredKey]:
    """Return the keys with these public ids; unknown keys are absent."""
    rows = await session.execute(_STORED, {"public_ids": list(public_ids)})
    return {
        row.public_id: StoredKey(
            Principal(row.public_id, row.name, Role(row.role)), row.secret_hash, row.is_revoked
        )
        for row in rows
    }


async def revoked_keys(session: ReadSession, public_ids: Collection[str]) -> Sequence[str]:
    """Return the public ids of those keys that are revoked or do not exist."""
    return (await session.execute(_REVOKED, {"public_ids": list(public_ids)})).scalars().all()


async def record_last_used(session: WriteSession, public_ids: Collection[str]) -> None:
    """Set `last_used_at` of these keys to now. Keys that do not exist are ignored."""
    await session.execute(_RECORD_LAST_USED, {"public_ids": list(public_ids)})
