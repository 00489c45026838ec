"""Batched reads of users."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segmentql.adapters.database import ReadSession
from segmentql.graphql.batching import Loader
from segmentql.users import service

if TYPE_CHECKING:
    from segmentql.users.api import User


class UserById(Loader[int, "User | None"]):
    """A user by number; None where not stored."""

    async def fetch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, User]":
        from segmentql.users.api import User  # noqa: PLC0415 - it has this

        rows = await service.users_by_id(session, keys)
        return {user_id: User.from_row(row) for user_id, row in rows.items()}

    def absent(self, key: int) -> None:
        return None
