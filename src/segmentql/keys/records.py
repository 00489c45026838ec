"""Records of API keys."""

from dataclasses import dataclass
from datetime import datetime

from segmentql.principal import Principal
from segmentql.tables import Role


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """An API key without its secret. A revoked key is kept."""

    number: int
    """The sort key: keys that are created later have higher numbers."""
    public_id: str
    """The part between the two `_` of the key."""
    name: str
    role: Role
    created_at: datetime
    created_by: str | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """The data that authenticates an API key."""

    principal: Principal
    secret_hash: bytes
    is_revoked: bool
