"""The principal of a request: its identity and its role."""

from dataclasses import dataclass
from typing import Final

from segmentql.tables import Role

_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request, identified by an API key unless authentication is off."""

    key_id: str | None
    """The public part of the key, or None if authentication is off."""

    name: str | None
    """The name of the key, which is the actor in history."""

    role: Role

    def has_role(self, role: Role) -> bool:
        """Return whether the principal has a role, or a role that includes it."""
        return _RANKS[self.role] >= _RANKS[role]


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change, as history and the logs record it."""

    name: str | None = None
    """The name of the API key. None if authentication is off, and for commands and workers."""

    api_key_id: str | None = None
    """The public part of the API key."""

    request_id: str | None = None
    """The id of the request that makes the change."""


NO_ACTOR: Final = Actor()
"""The author of a change that no API key makes: of a command or a worker."""

ANONYMOUS_ADMIN: Final = Principal(None, None, Role.ADMIN)
"""The principal of every request with `SEGMENTQL_AUTH=off`, which requires a loopback address."""
