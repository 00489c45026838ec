"""Commands of the property-based tests, which run on the reference model and on the service."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import TypeAlias

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.errors import MutationRejected
from segmentql.memberships.actors import expire_due_memberships
from segmentql.memberships.records import OnExisting
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import passes, sampling, service
from segmentql.rollouts.actors import advance_rollout
from segmentql.users.service import create_user, delete_user
from tests.back_dating import advance_time
from tests.conftest import Sql
from tests.rollouts.helpers import (
    expected_sample,
    members,
    read_rollout,
    set_plan,
    stage,
    store_sample,
    take_sample,
    update_manually,
)
from tests.rollouts.reference_model import LogicalTime, Model, Segment
from tests.timeline import database_now

USERS = range(1, 31)
SLUGS = ("A", "B")
STEP_SECONDS = 100
"""Waits and expiries are whole steps. A step is much longer than an example, to avoid races."""


class ServiceUnderTest:
    """The service under test, with its database."""

    def __init__(self, database: Database, sql: Sql) -> None:
        self.database = database
        self.sql = sql

    async def accepts(self, work: Callable[[WriteSession], Awaitable[object]]) -> bool:
        try:
            await self.database.transaction(work)
        except MutationRejected:
            return False
        return True


def steps_later(now: LogicalTime, steps: int) -> LogicalTime:
    return (now[0] + steps * STEP_SECONDS, now[1])


@dataclass(frozen=True)
class SetPlan:
    slug: str
    stages: tuple[tuple[str, int], ...]
    """The percent of each stage, and its start in steps after the previous stage."""
    enroll_new_users: bool = True
    expires_after: int | None = None
    """The expiry in steps after the last stage."""

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        start, stages = 0, []
        for percent, wait in self.stages:
            start += wait
            stages.append((Decimal(percent), steps_later(model.now, start)))
        end = None if self.expires_after is None else start + self.expires_after
        model.segments[self.slug].set_plan(
            model.now,
            stages,
            self.enroll_new_users,
            None if end is None else steps_later(model.now, end),
        )
        await set_plan(
            real.database,
            self.slug,
            *(
                stage(percent, after=timedelta(seconds=wait * STEP_SECONDS))
                for percent, wait in self.stages
            ),
            enroll_new_users=self.enroll_new_users,
            expires_at=None
            if end is None
            else await database_now(real.sql) + timedelta(seconds=end * STEP_SECONDS),
        )


@dataclass(frozen=True)
class Pause:
    slug: str

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        work = partial(service.pause_rollout, slug=self.slug, actor=NO_ACTOR)
        assert await real.accepts(work) == model.segments[self.slug].pause(model.now)


@dataclass(frozen=True)
class Resume:
    slug: str

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        work = partial(service.resume_rollout, slug=self.slug, actor=NO_ACTOR)
        assert await real.accepts(work) == model.segments[self.slug].resume(model.now)


@dataclass(frozen=True)
class Cancel:
    slug: str
    withdraw: bool

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        work = partial(
            service.cancel_rollout, slug=self.slug, withdraw=self.withdraw, actor=NO_ACTOR
        )
        assert await real.accepts(work) == model.segments[self.slug].cancel(
            model.now, withdraw=self.withdraw
        )


@dataclass(frozen=True)
class RunStep:
    """A worker runs one step (begins a pass, takes its sample, or works its chunk) and stops."""

    slug: str

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        segment = model.segments[self.slug]
        segment.step(model.now, model.users)
        if segment.rollout is None:
            return
        before = await read_rollout(real.database, segment.segment_id)
        done = await real.database.transaction(
            lambda session: passes.advance(session, segment.segment_id)
        )
        if isinstance(done, sampling.PendingSample) and done.pass_number == before.pass_number:
            await store_sample(real.database, done, await take_sample(real.database, done))


@dataclass(frozen=True)
class FinishWork:
    """A worker completes all work that is due."""

    slug: str

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        segment = model.segments[self.slug]
        while segment.step(model.now, model.users):
            pass
        await advance_rollout(real.database, segment.segment_id)
        await assert_exact(model, real, segment)


@dataclass(frozen=True)
class UpdateMemberships:
    user_id: int
    add: tuple[str, ...]
    remove: tuple[str, ...]
    ttl: int | None = None
    on_existing: OnExisting = OnExisting.EXTEND

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        model.store([self.user_id], with_database={*self.add, *self.remove})
        end = None if self.ttl is None else steps_later(model.now, self.ttl)
        for slug in self.add:
            model.segments[slug].add(self.user_id, model.now, end, self.on_existing)
        for slug in self.remove:
            model.segments[slug].remove(self.user_id, model.now)
        await update_manually(
            real.database,
            self.user_id,
            add=self.add,
            remove=self.remove,
            ttl=None if self.ttl is None else timedelta(seconds=self.ttl * STEP_SECONDS),
            on_existing=self.on_existing,
        )


@dataclass(frozen=True)
class CreateUser:
    user_id: int

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        is_new = self.user_id not in model.users
        model.store([self.user_id])
        assert (
            await real.accepts(partial(create_user, user_id=self.user_id, actor=NO_ACTOR)) == is_new
        )


@dataclass(frozen=True)
class InsertUsers:
    """Insert several users with one statement; some may exist already."""

    first: int
    users: int

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
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
class DeleteUser:
    user_id: int

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        work = partial(delete_user, user_id=self.user_id, actor=NO_ACTOR)
        assert await real.accepts(work) == model.delete(self.user_id)


@dataclass(frozen=True)
class PassTime:
    steps: int

    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        await advance_time(real.sql, timedelta(seconds=self.steps * STEP_SECONDS))
        model.wait(self.steps * STEP_SECONDS)


@dataclass(frozen=True)
class RecordExpiry:
    async def run(self, model: Model, real: ServiceUnderTest) -> None:
        await expire_due_memberships(real.database)


async def assert_exact(model: Model, real: ServiceUnderTest, segment: Segment) -> None:
    """Check the members after a finished pass against the sample, independently of the model."""
    rollout = segment.rollout
    if rollout is None or rollout.phase != "DONE" or rollout.expired(model.now):
        return
    current_members = await members(real.sql, segment.segment_id)
    pass_users = {
        u for u, insert_seq in rollout.pass_users.items() if model.users.get(u) == insert_seq
    }
    sample = (
        expected_sample(segment.segment_id, rollout.pass_users, rollout.pass_percent) & pass_users
    )
    if rollout.state == "ACTIVE":
        with_expiry = {
            membership.user_id for membership in segment.memberships if membership.end is not None
        }
        assert sample - segment.excluded - with_expiry <= current_members.keys()
    by_rollout = {user_id for user_id, cause in current_members.items() if cause == "ROLLOUT"}
    if rollout.removes_members:
        assert by_rollout & pass_users <= sample
    assert not by_rollout & segment.excluded


Command: TypeAlias = (
    SetPlan
    | Pause
    | Resume
    | Cancel
    | RunStep
    | FinishWork
    | UpdateMemberships
    | CreateUser
    | InsertUsers
    | DeleteUser
    | PassTime
    | RecordExpiry
)
