"""Batched reads of flags, as `IsIn` reads whether users are in segments."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.ofrep import service
from segmentql.ofrep.records import FlagRecord, FlagsRecord


class FlagById(Loader[tuple[int, str], FlagRecord | None]):
    """The flag of a user id and a slug; None if there is no segment with the slug."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[int, str]]
    ) -> Mapping[tuple[int, str], FlagRecord]:
        return await service.flags_by_id(session, keys)

    def on_missing(self, key: tuple[int, str]) -> None:
        return None


class FlagByKey(Loader[tuple[str, str], FlagRecord | None]):
    """The flag of a user key and a slug; None if there is no segment with the slug."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], FlagRecord]:
        return await service.flags_by_key(session, keys)

    def on_missing(self, key: tuple[str, str]) -> None:
        return None


class FlagsById(Loader[int, FlagsRecord]):
    """All flags of a user id."""

    max_keys = 50  # Each user may have `MAX_FLAGS` rows.
    max_concurrent_batches = 2
    prefix: ClassVar[str] = ""
    """The prefix of the slugs. A process uses a subclass with its setting."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, FlagsRecord]:
        return await service.all_flags_by_id(session, keys, prefix=self.prefix)

    def on_missing(self, key: int) -> FlagsRecord:
        raise AssertionError("the statement returned no flags of a user")


class FlagsByKey(Loader[str, FlagsRecord]):
    """All flags of a user key."""

    max_keys = FlagsById.max_keys
    max_concurrent_batches = FlagsById.max_concurrent_batches
    prefix: ClassVar[str] = ""
    """See `FlagsById`."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, FlagsRecord]:
        return await service.all_flags_by_key(session, keys, prefix=self.prefix)

    def on_missing(self, key: str) -> FlagsRecord:
        raise AssertionError("the statement returned no flags of a user")
