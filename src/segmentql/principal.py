"""Who asks, and what they may do."""

from dataclasses import dataclass
from typing import Final

from segmentql.tables import Role

_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a key, or whoever can reach a service that asks for none."""

    key_id: str | None
    """The public part of the key; None where none is asked for."""

    name: str | None
    """The key's name: the actor in history."""

    role: Role

    def has_role(self, role: Role) -> bool:
        """Whether this caller's role is that one, or one that may do more."""
        return _RANKS[self.role] >= _RANKS[role]


ANONYMOUS_ADMIN: Final = Principal(None, None, Role.ADMIN)
"""Who asks a service that asks for no key (`SEGMENTQL_AUTH=off`): it listens on loopback alone."""
