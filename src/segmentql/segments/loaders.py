"""Batched reads of segments."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segmentql.adapters.database import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.segments import service

if TYPE_CHECKING:
    from segmentql.segments.api import Segment


class SegmentBySlug(Loader[str, "Segment | None"]):
    """The segment that bears a slug now; None where there is none."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[str]
    ) -> "Mapping[str, Segment]":
        from segmentql.segments.api import Segment  # noqa: PLC0415 - it has this

        rows = await service.segments_by_slug(session, keys)
        return {slug: Segment.from_row(row) for slug, row in rows.items()}

    def on_missing(self, key: str) -> None:
        return None
