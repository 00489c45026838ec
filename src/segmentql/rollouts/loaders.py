"""Batched reads of rollouts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from segmentql.adapters.database import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.rollouts import service

if TYPE_CHECKING:
    from segmentql.rollouts.api import Rollout


class RolloutBySegment(Loader[int, "Rollout | None"]):
    """The rollout of each segment, by segment id; None if the segment has no rollout."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> "Mapping[int, Rollout]":
        from segmentql.rollouts.api import Rollout  # noqa: PLC0415 - api imports this module

        rows = await service.rollouts_by_segment(session, keys)
        return {segment_id: Rollout.from_row(row) for segment_id, row in rows.items()}

    def on_missing(self, key: int) -> None:
        return None


class RolloutCounts(Loader[int, Row[Any]]):
    """The `enrolled` and `excluded` counts of each rollout, by segment id."""

    max_keys = 20  # Each count may take long, and a timeout fails all keys of the statement.

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, Row[Any]]:
        return await service.rollout_counts(session, keys)

    def on_missing(self, key: int) -> Row[Any]:
        raise AssertionError(f"segment {key} was not counted")
