"""Batched reads of users."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.graphql.batching import Loader
from segmentql.users import service


class UserById(Loader[int, Row[Any] | None]):
    """A user by number; None where not stored."""

    async def fetch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, Row[Any]]:
        return await service.users_by_id(session, keys)

    def absent(self, key: int) -> None:
        return None
