"""Records of API keys."""

from dataclasses import dataclass
from datetime import datetime

from segmentql.principal import Principal
from segmentql.tables import Role


def key_global_id(public_id: str) -> str:
    """Return the id by which clients know a key."""
    return f"key_{public_id}"


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

    @property
    def global_id(self) -> str:
        """The id by which clients know the key."""
        return key_global_id(self.public_id)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """The data that authenticates an API key."""

    principal: Principal
    secret_hash: bytes
    is_revoked: bool
