"""Batched reads of segments."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.segments import service
from segmentql.segments.records import SegmentRecord


class SegmentBySlug(Loader[str, SegmentRecord | None]):
    """The existing segment with a slug; None if there is none."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> Mapping[str, SegmentRecord]:
        return await service.segments_by_slug(session, keys)

    def on_missing(self, key: str) -> None:
        return None


class SegmentById(Loader[int, SegmentRecord | None]):
    """An existing segment by id; None if it does not exist or was deleted."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, SegmentRecord]:
        return await service.segments_by_id(session, keys)

    def on_missing(self, key: int) -> None:
        return None
