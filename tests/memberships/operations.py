"""Operations on the service and on the model, and strategies that generate sequences of them."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.errors import MutationRejected
from segmentql.memberships import actors
from segmentql.memberships.records import OnExisting
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.service import create_segment
from segmentql.users.service import delete_user
from tests.back_dating import advance_time
from tests.conftest import Sql
from tests.memberships.reference_model import SLUGS, STEP_SECONDS, USERS, Model


class SystemUnderTest:
    """The service under test, with the operations of the model."""

    def __init__(self, database: Database, sql: Sql) -> None:
        self.database = database
        self.sql = sql

    async def done(self, work: Callable[..., Coroutine[Any, Any, object]], **given: object) -> bool:
        try:
            await self.database.transaction(partial(work, **given))
        except MutationRejected:
            return False
        return True

    async def record_segment_leaves(self) -> None:
        for row in await self.sql.fetch("SELECT id FROM segments WHERE deleted_at IS NOT NULL"):
            await actors.record_segment_leaves(self.database, row["id"])

    async def record_expired(self) -> None:
        await actors.expire_due_memberships(self.database)


@dataclass(frozen=True)
class Change:
    user_id: int
    add: tuple[str, ...]
    remove: tuple[str, ...]
    ttl_seconds: int | None = None
    on_existing: OnExisting = OnExisting.EXTEND

    async def run(self, model: Model, system: SystemUnderTest) -> None:
        given = {"user_id": self.user_id, "add": self.add, "remove": self.remove}
        ttl = None if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds)
        assert await system.done(
            update_user_segments, **given, ttl=ttl, on_existing=self.on_existing, actor=NO_ACTOR
        ) == model.change(self.user_id, self.add, self.remove, self.ttl_seconds, self.on_existing)


@dataclass(frozen=True)
class Create:
    slug: str

    async def run(self, model: Model, system: SystemUnderTest) -> None:
        # A rejected insert may leave a gap in the segment ids.
        done = await system.done(
            create_segment, slug=self.slug, name=None, description=None, actor=NO_ACTOR
        )
        assert done == model.create_segment(self.slug)
        if done:
            model.segments_created = await system.sql.fetchval("SELECT max(id) FROM segments")
            model.slugs[self.slug] = model.segments_created


@dataclass(frozen=True)
class DeleteSegment:
    slug: str

    async def run(self, model: Model, system: SystemUnderTest) -> None:
        assert await system.done(
            delete_segment, slug=self.slug, expected_version=None, actor=NO_ACTOR
        ) == model.delete_segment(self.slug)


@dataclass(frozen=True)
class DeleteUser:
    user_id: int

    async def run(self, model: Model, system: SystemUnderTest) -> None:
        assert await system.done(
            delete_user, user_id=self.user_id, actor=NO_ACTOR
        ) == model.delete_user(self.user_id)


@dataclass(frozen=True)
class Wait:
    seconds: int

    async def run(self, model: Model, system: SystemUnderTest) -> None:
        await advance_time(system.sql, timedelta(seconds=self.seconds))
        model.now = (model.now[0] + self.seconds, model.now[1])


@dataclass(frozen=True)
class RecordExpired:
    async def run(self, model: Model, system: SystemUnderTest) -> None:
        await system.record_expired()


@dataclass(frozen=True)
class RecordSegmentLeaves:
    async def run(self, model: Model, system: SystemUnderTest) -> None:
        await system.record_segment_leaves()


Step: TypeAlias = (
    Change | Create | DeleteSegment | DeleteUser | Wait | RecordExpired | RecordSegmentLeaves
)


def changes() -> st.SearchStrategy[Step]:
    seconds = st.integers(1, 4).map(lambda steps: steps * STEP_SECONDS)
    return st.builds(
        lambda user_id, slugs, split, ttl_seconds, on_existing: Change(
            user_id, slugs[:split], slugs[split:], ttl_seconds, on_existing
        ),
        st.sampled_from(USERS),
        st.sampled_from([("A",), ("B",), ("A", "B"), ("B", "A"), ()]),
        st.sampled_from([2, 2, 1, 0]),  # mostly additions
        st.none() | seconds,
        st.sampled_from(OnExisting),
    )


def steps() -> st.SearchStrategy[list[Step]]:
    slugs, users = st.sampled_from(SLUGS), st.sampled_from(USERS)
    kinds: list[st.SearchStrategy[Step]] = [
        st.builds(Wait, st.integers(1, 3).map(lambda steps: steps * STEP_SECONDS)),
        st.builds(Create, slugs),
        st.builds(DeleteSegment, slugs),
        st.builds(DeleteUser, users),
        st.just(RecordExpired()),
        st.just(RecordSegmentLeaves()),
    ]
    # Most operations are changes, so that they affect existing rows; `one_of` would count them
    # once.
    weighted = [*[changes()] * 12, kinds[0], kinds[0], *kinds]
    step = st.integers(0, len(weighted) - 1).flatmap(weighted.__getitem__)
    return st.lists(step, min_size=20, max_size=40).map(
        lambda rest: [Create("A"), Create("B"), *rest]
    )
