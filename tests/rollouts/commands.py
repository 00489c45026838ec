"""What is done, in tests by examples, to the model of rollouts and to the real thing alike."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TypeAlias

from segmentql.adapters.database import Database, WriteSession
from segmentql.errors import Refused
from segmentql.memberships.actors import end_due_memberships
from segmentql.memberships.service import OnExisting
from segmentql.rollouts import passes, service
from segmentql.rollouts.actors import advance_rollout
from segmentql.users.service import create_user, delete_user
from tests.conftest import Sql
from tests.past import let_pass
from tests.rollouts.helpers import (
    by_hand,
    members,
    rollout_of,
    sample_of,
    set_plan,
    stage,
    store,
    take,
)
from tests.rollouts.reference_model import Model, Moment, Segment
from tests.timeline import clock

USERS = range(1, 31)
SLUGS = ("A", "B")
STEP_SECONDS = 100
"""Waits and ends are whole steps, far longer than an example takes: what is due is no race."""


class Service:
    """The real thing, asked to do what the model does."""

    def __init__(self, database: Database, sql: Sql) -> None:
        self.database = database
        self.sql = sql

    async def done(self, work: Callable[[WriteSession], Awaitable[object]]) -> bool:
        try:
            await self.database.transaction(work)
        except Refused:
            return False
        return True


def steps_from(now: Moment, steps: int) -> Moment:
    return (now[0] + steps * STEP_SECONDS, now[1])


@dataclass(frozen=True)
class SetPlan:
    slug: str
    stages: tuple[tuple[str, int], ...]
    """Each percent, and how many steps after the one before it starts."""
    enrolls: bool = True
    expires_after: int | None = None
    """How many steps after the last stage."""

    async def run(self, model: Model, real: Service) -> None:
        start, stages = 0, []
        for percent, wait in self.stages:
            start += wait
            stages.append((Decimal(percent), steps_from(model.now, start)))
        end = None if self.expires_after is None else start + self.expires_after
        model.segments[self.slug].set_plan(
            model.now, stages, self.enrolls, None if end is None else steps_from(model.now, end)
        )
        await set_plan(
            real.database,
            self.slug,
            *(
                stage(percent, after=timedelta(seconds=wait * STEP_SECONDS))
                for percent, wait in self.stages
            ),
            enroll_new_users=self.enrolls,
            expires_at=None
            if end is None
            else await clock(real.sql) + timedelta(seconds=end * STEP_SECONDS),
        )


@dataclass(frozen=True)
class Pause:
    slug: str

    async def run(self, model: Model, real: Service) -> None:
        work = partial(service.pause_rollout, slug=self.slug)
        assert await real.done(work) == model.segments[self.slug].pause(model.now)


@dataclass(frozen=True)
class Resume:
    slug: str

    async def run(self, model: Model, real: Service) -> None:
        work = partial(service.resume_rollout, slug=self.slug)
        assert await real.done(work) == model.segments[self.slug].resume(model.now)


@dataclass(frozen=True)
class Cancel:
    slug: str
    withdraw: bool

    async def run(self, model: Model, real: Service) -> None:
        work = partial(service.cancel_rollout, slug=self.slug, withdraw=self.withdraw)
        assert await real.done(work) == model.segments[self.slug].cancel(
            model.now, withdraw=self.withdraw
        )


@dataclass(frozen=True)
class StepOf:
    """A worker begins a pass, takes its sample, or works its chunk, and goes away."""

    slug: str

    async def run(self, model: Model, real: Service) -> None:
        segment = model.segments[self.slug]
        segment.step(model.now, model.users)
        if segment.rollout is None:
            return
        before = await rollout_of(real.database, segment.number)
        done = await real.database.transaction(
            lambda session: passes.advance(session, segment.number)
        )
        if isinstance(done, passes.PendingSample) and done.pass_number == before.pass_number:
            await store(real.database, done, await take(real.database, done))


@dataclass(frozen=True)
class Work:
    """A worker does all there is to do."""

    slug: str

    async def run(self, model: Model, real: Service) -> None:
        segment = model.segments[self.slug]
        while segment.step(model.now, model.users):
            pass
        await advance_rollout(real.database, segment.number)
        await assert_exact(model, real, segment)


@dataclass(frozen=True)
class Change:
    user_id: int
    add: tuple[str, ...]
    remove: tuple[str, ...]
    ttl: int | None = None
    on_existing: OnExisting = OnExisting.EXTEND

    async def run(self, model: Model, real: Service) -> None:
        model.store([self.user_id], named={*self.add, *self.remove})
        end = None if self.ttl is None else steps_from(model.now, self.ttl)
        for slug in self.add:
            model.segments[slug].add(self.user_id, model.now, end, self.on_existing)
        for slug in self.remove:
            model.segments[slug].remove(self.user_id, model.now)
        await by_hand(
            real.database,
            self.user_id,
            add=self.add,
            remove=self.remove,
            ttl=None if self.ttl is None else timedelta(seconds=self.ttl * STEP_SECONDS),
            on_existing=self.on_existing,
        )


@dataclass(frozen=True)
class Create:
    user_id: int

    async def run(self, model: Model, real: Service) -> None:
        is_new = self.user_id not in model.users
        model.store([self.user_id])
        assert await real.done(partial(create_user, user_id=self.user_id)) == is_new


@dataclass(frozen=True)
class Insert:
    """Several at once, by SQL, some of whom may be there."""

    first: int
    users: int

    async def run(self, model: Model, real: Service) -> None:
        user_ids = [number for number in USERS if self.first <= number < self.first + self.users]
        model.store(user_ids)
        await real.sql.execute(
            """
            INSERT INTO users (id, created_at) SELECT unnest($1::bigint[]), now()
            ON CONFLICT DO NOTHING
            """,
            user_ids,
        )


@dataclass(frozen=True)
class Delete:
    user_id: int

    async def run(self, model: Model, real: Service) -> None:
        work = partial(delete_user, user_id=self.user_id, actor=None)
        assert await real.done(work) == model.delete(self.user_id)


@dataclass(frozen=True)
class Wait:
    steps: int

    async def run(self, model: Model, real: Service) -> None:
        await let_pass(real.sql, timedelta(seconds=self.steps * STEP_SECONDS))
        model.wait(self.steps * STEP_SECONDS)


@dataclass(frozen=True)
class TidyEnds:
    async def run(self, model: Model, real: Service) -> None:
        await end_due_memberships(real.database)


async def assert_exact(model: Model, real: Service, segment: Segment) -> None:
    """What rule 6 says of a segment whose pass is over, without asking how the model did it."""
    rollout = segment.rollout
    if rollout is None or rollout.phase != "DONE" or rollout.expired(model.now):
        return
    in_now = await members(real.sql, segment.number)
    of_the_pass = {u for u, arrival in rollout.stored.items() if model.users.get(u) == arrival}
    sample = sample_of(segment.number, rollout.stored, rollout.goal) & of_the_pass
    if rollout.state == "ACTIVE":
        ends_by_hand = {stay.user_id for stay in segment.stays if stay.end is not None}
        assert sample - segment.excluded - ends_by_hand <= in_now.keys()
    by_rollout = {user_id for user_id, cause in in_now.items() if cause == "ROLLOUT"}
    if rollout.takes_out:
        assert by_rollout & of_the_pass <= sample
    assert not by_rollout & segment.excluded


Step: TypeAlias = (
    SetPlan
    | Pause
    | Resume
    | Cancel
    | StepOf
    | Work
    | Change
    | Create
    | Insert
    | Delete
    | Wait
    | TidyEnds
)
