"""Batched reads of API keys."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.keys import service
from segmentql.keys.records import ApiKeyRecord, StoredKey


class KeyByPublicId(Loader[str, StoredKey | None]):
    """A key by its public id; None if there is none."""

    max_concurrent_batches: ClassVar[int] = 1
    """A client that sends random keys causes larger batches, not more statements."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, StoredKey]:
        return await service.stored_keys(session, keys)

    def on_missing(self, key: str) -> None:
        return None


class ApiKeyByNumber(Loader[int, ApiKeyRecord | None]):
    """An API key without its secret, by number; None if there is none."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, ApiKeyRecord]:
        return await service.keys_by_number(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class ApiKeyByPublicId(Loader[str, ApiKeyRecord | None]):
    """An API key without its secret, by public id; None if there is none."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, ApiKeyRecord]:
        return await service.keys_by_public_id(session, keys)

    def on_missing(self, key: str) -> None:
        return None
