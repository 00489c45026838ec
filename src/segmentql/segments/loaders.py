"""Batched reads of segments."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.graphql.batching import Loader
from segmentql.segments import service


class SegmentBySlug(Loader[str, Row[Any] | None]):
    """The segment that bears a slug now; None where there is none."""

    async def fetch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, Row[Any]]:
        return await service.segments_by_slug(session, keys)

    def absent(self, key: str) -> None:
        return None
