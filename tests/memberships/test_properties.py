"""Whatever several users do in whatever order: the database and a small model say the same.

The model knows nothing of tables: it holds, for every membership that ever was, from when to when.
Time passes by moving every row into the past, which is what a clock put forward would look like.
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
from segmentql.memberships import actors, service
from segmentql.memberships.records import OnExisting
from segmentql.memberships.service import update_user_segments
from segmentql.segments.service import create_segment, delete_segment
from segmentql.users.service import delete_user
from segmentql.validators import MAX_PAGE_ROWS
from tests.back_dating import advance_time
from tests.conftest import Sql, empty_tables
from tests.timeline import database_now, history_inconsistencies

USERS = (1, 2)
SLUGS = ("A", "B")
STEP_SECONDS = 10
"""Ends and waits are whole steps, far longer than an example takes: what has ended is no race."""

Moment: TypeAlias = tuple[int, int]
"""When in the model: the seconds that were waited, and the number of the operation."""


@dataclass
class Stay:
    """One membership from its join on; `end` is where it ends unless something changes it."""

    user_id: int
    segment_id: int
    start: Moment
    end: Moment | None
    end_cause: str = "TTL"

    def holds(self, at: Moment) -> bool:
        return self.start <= at and (self.end is None or self.end > at)


@dataclass
class Model:
    """What ought to be so."""

    now: Moment = (0, 0)
    users: set[int] = field(default_factory=set)
    slugs: dict[str, int] = field(default_factory=dict)
    segments_made: int = 0
    stays: list[Stay] = field(default_factory=list)
    excluded: set[tuple[int, int]] = field(default_factory=set)

    def active(self, **which: int) -> list[Stay]:
        return [
            stay
            for stay in self.stays
            if stay.holds(self.now) and all(getattr(stay, k) == v for k, v in which.items())
        ]

    def close(self, stays: Sequence[Stay], cause: str) -> None:
        for stay in stays:
            stay.end, stay.end_cause = self.now, cause

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
            there = self.active(user_id=user_id, segment_id=segment_id)
            if not there:
                self.stays.append(Stay(user_id, segment_id, self.now, end))
            elif on_existing is OnExisting.REPLACE:
                there[0].end = end
            elif on_existing is OnExisting.EXTEND:
                there[0].end = None if None in (end, there[0].end) else max(end, there[0].end)  # type: ignore[type-var]
        for segment_id in (self.slugs[slug] for slug in remove):
            self.excluded.add((user_id, segment_id))
            self.close(self.active(user_id=user_id, segment_id=segment_id), "MANUAL")
        return True

    def create_segment(self, slug: str) -> bool:
        if slug in self.slugs:
            return False
        self.segments_made += 1
        self.slugs[slug] = self.segments_made
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
        """What happened to a user, by moment, as (segment, operation, cause)."""
        happened = [
            (stay.start, (stay.segment_id, "JOINED", "MANUAL"))
            for stay in self.stays
            if stay.user_id == user_id
        ] + [
            (stay.end, (stay.segment_id, "LEFT", stay.end_cause))
            for stay in self.stays
            if stay.user_id == user_id and stay.end is not None and stay.end <= self.now
        ]
        happened.sort(key=lambda entry: entry[0])
        return [
            (at, {entry for _, entry in together})
            for at, together in groupby(happened, key=lambda entry: entry[0])
        ]


class Service:
    """The real thing, asked to do what the model does."""

    def __init__(self, database: Database, sql: Sql) -> None:
        self.database = database
        self.sql = sql

    async def done(self, work: Callable[..., Coroutine[Any, Any, object]], **given: object) -> bool:
        try:
            await self.database.transaction(partial(work, **given))
        except MutationRejected:
            return False
        return True

    async def tidy_segments(self) -> None:
        for row in await self.sql.fetch("SELECT id FROM segments WHERE deleted_at IS NOT NULL"):
            await actors.record_segment_leaves(self.database, row["id"])

    async def tidy_ends(self) -> None:
        await actors.expire_due_memberships(self.database)


@dataclass(frozen=True)
class Change:
    user_id: int
    add: tuple[str, ...]
    remove: tuple[str, ...]
    ttl_seconds: int | None = None
    on_existing: OnExisting = OnExisting.EXTEND

    async def run(self, model: Model, real: Service) -> None:
        given = {"user_id": self.user_id, "add": self.add, "remove": self.remove}
        ttl = None if self.ttl_seconds is None else timedelta(seconds=self.ttl_seconds)
        assert await real.done(
            update_user_segments, **given, ttl=ttl, on_existing=self.on_existing
        ) == model.change(self.user_id, self.add, self.remove, self.ttl_seconds, self.on_existing)


@dataclass(frozen=True)
class Create:
    slug: str

    async def run(self, model: Model, real: Service) -> None:
        # A refused insert may leave a gap in the numbers of segments.
        done = await real.done(create_segment, slug=self.slug, name=None, description=None)
        assert done == model.create_segment(self.slug)
        if done:
            model.segments_made = await real.sql.fetchval("SELECT max(id) FROM segments")
            model.slugs[self.slug] = model.segments_made


@dataclass(frozen=True)
class DeleteSegment:
    slug: str

    async def run(self, model: Model, real: Service) -> None:
        assert await real.done(
            delete_segment, slug=self.slug, expected_version=None, actor=None
        ) == model.delete_segment(self.slug)


@dataclass(frozen=True)
class DeleteUser:
    user_id: int

    async def run(self, model: Model, real: Service) -> None:
        assert await real.done(delete_user, user_id=self.user_id, actor=None) == model.delete_user(
            self.user_id
        )


@dataclass(frozen=True)
class Wait:
    seconds: int

    async def run(self, model: Model, real: Service) -> None:
        await advance_time(real.sql, timedelta(seconds=self.seconds))
        model.now = (model.now[0] + self.seconds, model.now[1])


@dataclass(frozen=True)
class TidyEnds:
    async def run(self, model: Model, real: Service) -> None:
        await real.tidy_ends()


@dataclass(frozen=True)
class TidySegments:
    async def run(self, model: Model, real: Service) -> None:
        await real.tidy_segments()


Step: TypeAlias = Change | Create | DeleteSegment | DeleteUser | Wait | TidyEnds | TidySegments


def changes() -> st.SearchStrategy[Step]:
    seconds = st.integers(1, 4).map(lambda steps: steps * STEP_SECONDS)
    return st.builds(
        lambda user_id, slugs, split, ttl_seconds, on_existing: Change(
            user_id, slugs[:split], slugs[split:], ttl_seconds, on_existing
        ),
        st.sampled_from(USERS),
        st.sampled_from([("A",), ("B",), ("A", "B"), ("B", "A"), ()]),
        st.sampled_from([2, 2, 1, 0]),  # mostly adding
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
        st.just(TidyEnds()),
        st.just(TidySegments()),
    ]
    # Mostly changes, so that they meet what is there; `one_of` would count them once.
    weighted = [*[changes()] * 12, kinds[0], kinds[0], *kinds]
    step = st.integers(0, len(weighted) - 1).flatmap(weighted.__getitem__)
    return st.lists(step, min_size=20, max_size=40).map(
        lambda rest: [Create("A"), Create("B"), *rest]
    )


def whole_steps_left(end: datetime | None, now: datetime) -> int | None:
    """The seconds until an end, made good for the little that the example itself has taken."""
    if end is None:
        return None
    return math.ceil((end - now).total_seconds() / STEP_SECONDS) * STEP_SECONDS


async def assert_same_now(model: Model, real: Service) -> None:
    """Every read of what is so now says what the model says."""
    now = await database_now(real.sql)
    async with real.database.read() as session:
        found = await service.memberships_by_user(session, USERS)
        counts = await service.member_counts(session, list(model.slugs.values()))
        excluded = await service.excluded_pairs(
            session, [(user_id, slug) for user_id in USERS for slug in SLUGS]
        )
    for user_id in USERS:
        rows = {m.segment.segment_id: m.expires_at for m in found.get(user_id, [])}
        assert {key: whole_steps_left(end, now) for key, end in rows.items()} == {
            stay.segment_id: None if stay.end is None else stay.end[0] - model.now[0]
            for stay in model.active(user_id=user_id)
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


async def assert_same_past_of_all(model: Model, real: Service) -> None:
    async with real.database.read() as session:
        pages = await history_pages(
            session, [HistoryPage(MAX_PAGE_ROWS, user_id=user_id) for user_id in USERS]
        )
    assert {page.user_id for page in pages} == {
        user_id for user_id in USERS if model.entries(user_id)
    }
    for page, rows in pages.items():
        assert page.user_id is not None
        await assert_same_past(model, real, page.user_id, rows)


async def assert_same_past(model: Model, real: Service, user_id: int, rows: list[Any]) -> None:
    """History has the model's entries in the model's order, and so it was at each moment."""
    told: list[tuple[datetime, set[tuple[int, str, str]]]] = [
        (at, {(row.segment.segment_id, str(row.operation), str(row.cause)) for row in together})
        for at, together in groupby(reversed(rows), key=lambda row: row.at)
    ]
    expected = model.entries(user_id)
    assert [entries for _, entries in told] == [entries for _, entries in expected]

    def at_the_time(moment: Moment) -> set[int]:
        return {s.segment_id for s in model.stays if s.user_id == user_id and s.holds(moment)}

    asked: dict[tuple[int, datetime], set[int]] = {}
    before: set[int] = set()
    for (at, _), (moment, _) in zip(told, expected, strict=True):
        after = at_the_time(moment)
        asked[user_id, at - timedelta(microseconds=1)] = before
        asked[user_id, at] = after
        asked[user_id, at + timedelta(microseconds=1)] = after
        before = after
    async with real.database.read() as session:
        found = await segments_as_of(session, list(asked))
    assert {key: {row.segment_id for row in found[key]} for key in asked} == asked


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps())
@example(
    # What ran out is added again before anybody recorded its end, in a segment made anew.
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
        TidySegments(),
        TidyEnds(),
    ]
)
async def test_memberships_history_and_every_past_moment_agree_with_the_model(
    sql: Sql, database: Database, steps: list[Step]
) -> None:
    await empty_tables(sql)
    model, real = Model(), Service(database, sql)
    for number, step in enumerate(steps):
        model.now = (model.now[0], number)
        await step.run(model, real)
        await assert_same_now(model, real)
    await assert_same_past_of_all(model, real)
    assert await history_inconsistencies(sql) == {}
    await real.tidy_segments()
    await real.tidy_ends()
    await assert_same_now(model, real)
    await assert_same_past_of_all(model, real)
    assert await history_inconsistencies(sql) == {}
    assert await sql.fetchval("SELECT count(*) FROM memberships") == len(model.active())
