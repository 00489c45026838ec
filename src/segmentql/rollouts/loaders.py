"""Batched reads of rollouts."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.rollouts import reads
from segmentql.rollouts.records import RolloutCounts, RolloutRecord


class RolloutBySegment(Loader[int, RolloutRecord | None]):
    """The rollout of each segment, by segment id; None if the segment has no rollout."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, RolloutRecord]:
        return await reads.rollouts_by_segment(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class RolloutCountsBySegment(Loader[int, RolloutCounts]):
    """The numbers of users of each rollout, by segment id."""

    max_keys = 20  # Each count may take long, and a timeout fails all keys of the statement.

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, RolloutCounts]:
        return await reads.rollout_counts(session, keys)

    def on_missing(self, key: int) -> RolloutCounts:
        raise AssertionError(f"segment {key} was not counted")
