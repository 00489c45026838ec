"""Batched reads of users."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.users import service
from segmentql.users.records import UserRecord


class UserById(Loader[int, UserRecord | None]):
    """A user by id; None if the user is not stored."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, UserRecord]:
        return await service.users_by_id(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class UserByKey(Loader[str, UserRecord | None]):
    """A user by key; None if no stored user has the key."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, UserRecord]:
        return await service.users_by_key(session, keys)

    def on_missing(self, key: str) -> None:
        return None
