"""The database agrees with a small model after any sequence of operations.

The model has no tables: it holds the start and end of every membership that ever existed. Time
passes by moving every row into the past, as if the clock had been put forward.
"""

import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segmentql.adapters.database import Database
from segmentql.errors import MutationRejected
from segmentql.history.records import HistoryPage
from segmentql.history.service import history_pages, segments_as_of
from segmentql.memberships import actors, reads
from segmentql.memberships.records import OnExisting
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.rollouts.service import delete_segment_with_rollout as delete_segment
from segmentql.segments.service import create_segment
from segmentql.users.service import delete_user
from segmentql.validators import MAX_PAGE_ROWS
from tests.back_dating import advance_time
from tests.conftest import Sql, empty_tables
from tests.timeline import database_now, history_inconsistencies

USERS = (1, 2)
SLUGS = ("A", "B")
STEP_SECONDS = 10
"""Ends and waits are whole steps, far longer than an example takes, which avoids races."""

Moment: TypeAlias = tuple[int, int]
"""A time in the model: the seconds waited and the number of the operation."""


@dataclass
class Membership:
    """One membership from its join on; `end` is its expected end."""

    user_id: int
    segment_id: int
    start: Moment
    end: Moment | None
    end_cause: str = "TTL"

    def is_active_at(self, at: Moment) -> bool:
        return self.start <= at and (self.end is None or self.end > at)


@dataclass
class Model:
    """The expected state."""

    now: Moment = (0, 0)
    users: set[int] = field(default_factory=set)
    slugs: dict[str, int] = field(default_factory=dict)
    segments_created: int = 0
    memberships: list[Membership] = field(default_factory=list)
    excluded: set[tuple[int, int]] = field(default_factory=set)

    def active(self, **filters: int) -> list[Membership]:
        return [
            membership
            for membership in self.memberships
            if membership.is_active_at(self.now)
            and all(getattr(membership, k) == v for k, v in filters.items())
        ]

    def close(self, memberships: Sequence[Membership], cause: str) -> None:
        for membership in memberships:
            membership.end, membership.end_cause = self.now, cause

    def change(
        self,
        user_id: int,
        add: Sequence[str],
        remove: Sequence[str],
        ttl_seconds: int | None,
        on_existing: OnExisting,
    ) -> bool:
        if not {*add, *remove} <= self.slugs.keys():
            return False
        self.users.add(user_id)
        end = None if ttl_seconds is None else (self.now[0] + ttl_seconds, self.now[1])
        for segment_id in (self.slugs[slug] for slug in add):
            self.excluded.discard((user_id, segment_id))
            existing = self.active(user_id=user_id, segment_id=segment_id)
            if not existing:
                self.memberships.append(Membership(user_id, segment_id, self.now, end))
            elif on_existing is OnExisting.REPLACE:
                existing[0].end = end
            elif on_existing is OnExisting.EXTEND:
                old_end = existing[0].end
                existing[0].end = None if end is None or old_end is None else max(end, old_end)
        for segment_id in (self.slugs[slug] for slug in remove):
            self.excluded.add((user_id, segment_id))
            self.close(self.active(user_id=user_id, segment_id=segment_id), "MANUAL")
        return True

    def create_segment(self, slug: str) -> bool:
        if slug in self.slugs:
            return False
        self.segments_created += 1
        self.slugs[slug] = self.segments_created
        return True

    def delete_segment(self, slug: str) -> bool:
        if slug not in self.slugs:
            return False
        segment_id = self.slugs.pop(slug)
        self.close(self.active(segment_id=segment_id), "SEGMENT_DELETED")
        return True

    def delete_user(self, user_id: int) -> bool:
        if user_id not in self.users:
            return False
        self.users.discard(user_id)
        self.close(self.active(user_id=user_id), "USER_DELETED")
        self.excluded = {(user, segment) for user, segment in self.excluded if user != user_id}
        return True

    def entries(self, user_id: int) -> list[tuple[Moment, set[tuple[int, str, str]]]]:
        """Return a user's entries by moment, as (segment, operation, cause)."""
        entries_by_moment = [
            (membership.start, (membership.segment_id, "JOINED", "MANUAL"))
            for membership in self.memberships
            if membership.user_id == user_id
        ] + [
            (membership.end, (membership.segment_id, "LEFT", membership.end_cause))
            for membership in self.memberships
            if membership.user_id == user_id
            and membership.end is not None
            and membership.end <= self.now
        ]
        entries_by_moment.sort(key=lambda entry: entry[0])
        return [
            (at, {entry for _, entry in together})
            for at, together in groupby(entries_by_moment, key=lambda entry: entry[0])
        ]


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


def seconds_left_in_steps(end: datetime | None, now: datetime) -> int | None:
    """Return the seconds until an end, rounded up to a whole step."""
    if end is None:
        return None
    return math.ceil((end - now).total_seconds() / STEP_SECONDS) * STEP_SECONDS


async def assert_same_now(model: Model, system: SystemUnderTest) -> None:
    """Assert that every read of the current state agrees with the model."""
    now = await database_now(system.sql)
    async with system.database.read() as session:
        found = await reads.memberships_by_user(session, USERS)
        counts = await reads.member_counts(session, list(model.slugs.values()))
        excluded = await reads.excluded_pairs(
            session, [(user_id, slug) for user_id in USERS for slug in SLUGS]
        )
    for user_id in USERS:
        rows = {m.segment.segment_id: m.expires_at for m in found.get(user_id, [])}
        assert {key: seconds_left_in_steps(end, now) for key, end in rows.items()} == {
            membership.segment_id: None
            if membership.end is None
            else membership.end[0] - model.now[0]
            for membership in model.active(user_id=user_id)
        }
    assert counts == {
        segment_id: len(model.active(segment_id=segment_id)) for segment_id in model.slugs.values()
    }
    assert excluded == {
        (user_id, slug)
        for user_id, segment_id in model.excluded
        for slug, number in model.slugs.items()
        if number == segment_id
    }


async def assert_same_past_of_all(model: Model, system: SystemUnderTest) -> None:
    async with system.database.read() as session:
        pages = await history_pages(
            session, [HistoryPage(MAX_PAGE_ROWS, user_id=user_id) for user_id in USERS]
        )
    assert {page.user_id for page in pages} == {
        user_id for user_id in USERS if model.entries(user_id)
    }
    for page, rows in pages.items():
        assert page.user_id is not None
        await assert_same_past(model, system, page.user_id, rows)


async def assert_same_past(
    model: Model, system: SystemUnderTest, user_id: int, rows: list[Any]
) -> None:
    """Assert that history has the model's entries in order, and that `asOf` agrees."""
    recorded_entries: list[tuple[datetime, set[tuple[int, str, str]]]] = [
        (at, {(row.segment.segment_id, str(row.operation), str(row.cause)) for row in together})
        for at, together in groupby(reversed(rows), key=lambda row: row.at)
    ]
    expected = model.entries(user_id)
    assert [entries for _, entries in recorded_entries] == [entries for _, entries in expected]

    def segments_at(moment: Moment) -> set[int]:
        return {
            s.segment_id
            for s in model.memberships
            if s.user_id == user_id and s.is_active_at(moment)
        }

    requested: dict[tuple[int, datetime], set[int]] = {}
    before: set[int] = set()
    for (at, _), (moment, _) in zip(recorded_entries, expected, strict=True):
        after = segments_at(moment)
        requested[user_id, at - timedelta(microseconds=1)] = before
        requested[user_id, at] = after
        requested[user_id, at + timedelta(microseconds=1)] = after
        before = after
    async with system.database.read() as session:
        found = await segments_as_of(session, list(requested))
    assert {key: {row.segment_id for row in found[key]} for key in requested} == requested


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps())
@example(
    # This example adds an expired member before its leave is recorded, in a recreated segment.
    steps=[
        Create("A"),
        Change(1, ("A",), (), 10),
        DeleteSegment("A"),
        Create("A"),
        Change(1, ("A",), (), 10),
        Wait(10),
        Change(1, ("A",), (), 20, OnExisting.KEEP),
        Wait(30),
        DeleteUser(1),
        Change(1, (), ("A",)),
        RecordSegmentLeaves(),
        RecordExpired(),
    ]
)
async def test_database_agrees_with_the_model(
    sql: Sql, database: Database, steps: list[Step]
) -> None:
    await empty_tables(sql)
    model, system = Model(), SystemUnderTest(database, sql)
    for number, step in enumerate(steps):
        model.now = (model.now[0], number)
        await step.run(model, system)
        await assert_same_now(model, system)
    await assert_same_past_of_all(model, system)
    assert await history_inconsistencies(sql) == {}
    await system.record_segment_leaves()
    await system.record_expired()
    await assert_same_now(model, system)
    await assert_same_past_of_all(model, system)
    assert await history_inconsistencies(sql) == {}
    assert await sql.fetchval("SELECT count(*) FROM memberships") == len(model.active())
