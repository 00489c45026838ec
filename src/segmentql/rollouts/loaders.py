"""Batched reads of rollouts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.graphql.batching import Loader
from segmentql.rollouts import service

if TYPE_CHECKING:
    from segmentql.rollouts.api import Rollout


class RolloutBySegment(Loader[int, "Rollout | None"]):
    """The rollout of a segment, by the segment's number; None where it has none."""

    async def fetch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, Rollout]":
        from segmentql.rollouts.api import Rollout  # noqa: PLC0415 - it has counts, from here

        rows = await service.rollouts_by_segment(session, keys)
        return {segment_id: Rollout.from_row(row) for segment_id, row in rows.items()}

    def absent(self, key: int) -> None:
        return None


class RolloutCounts(Loader[int, Row[Any]]):
    """How many a rollout has brought in, and how many are excluded, by the segment's number."""

    max_keys = 20  # each may take long, and a time-out is everybody's who shares the statement

    async def fetch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, Row[Any]]:
        return await service.rollout_counts(session, keys)

    def absent(self, key: int) -> Row[Any]:
        raise AssertionError(f"segment {key} was not counted")
