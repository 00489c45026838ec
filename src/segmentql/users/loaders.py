"""Batched reads of users."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segmentql.adapters.database import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.users import service

if TYPE_CHECKING:
    from segmentql.users.api import User


class UserById(Loader[int, "User | None"]):
    """A user by number; None where not stored."""

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, User]":
        from segmentql.users.api import User  # noqa: PLC0415 - it has this

        rows = await service.users_by_id(session, keys)
        return {user_id: User.from_row(row) for user_id, row in rows.items()}

    def on_missing(self, key: int) -> None:
        return None
