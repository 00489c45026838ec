"""Explanations never contradict reads, themselves or the future, over random histories.

The commands are those of the property-based tests of rollouts. After each command, some users are
explained. At the end, each explanation is asked for again with its time as `asOf`, after all later
commands, and is compared with what `segments(asOf:)` returns.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings

from segmentql.adapters.database import Database
from segmentql.explain.records import ExplanationReason, ExplanationRecord
from segmentql.explain.service import explain
from segmentql.history.service import segments_as_of
from segmentql.memberships.reads import active_pairs
from tests.conftest import Sql, empty_tables
from tests.rollouts.commands import (
    SLUGS,
    STEP_SECONDS,
    USERS,
    Cancel,
    Command,
    CreateUser,
    DeleteUser,
    FinishWork,
    InsertUsers,
    PassTime,
    Pause,
    RecordExpiry,
    Resume,
    RunStep,
    ServiceUnderTest,
    SetPlan,
    UpdateMemberships,
)
from tests.rollouts.reference_model import Model, Segment
from tests.rollouts.strategies import command_lists
from tests.rollouts.test_rollout_properties import INTERRUPTED_LOWERING
from tests.timeline import make_segment

USERS_PER_COMMAND = 2
"""Random users that are explained after each command, besides the user of recent commands."""

BY_ROLLOUT = {ExplanationReason.IN_SAMPLE, ExplanationReason.ENROLLED_WHEN_STORED}
IN = {ExplanationReason.ADDED_BY_HAND, *BY_ROLLOUT}


class Asked(NamedTuple):
    """An explanation of the state at its time."""

    user_id: int
    slug: str
    explanation: ExplanationRecord
    steps_passed: int
    """The steps by which all rows had been back-dated at that time."""


def assert_all_known(explanation: ExplanationRecord) -> None:
    """Check that no plan or pass is missed, because the service records all of them."""
    texts = (explanation.summary, *(step.detail for step in explanation.steps))
    assert not any("not known" in text for text in texts)


class Explanations:
    """Explains users after each command, and again at the end."""

    def __init__(self, database: Database, sql: Sql) -> None:
        self._database = database
        self._sql = sql
        self._random = random.Random(7)  # noqa: S311 - not for security
        self._asked: list[Asked] = []
        self._steps_passed = 0
        self._recent: list[int] = []
        """The users of the last commands that changed one user."""
        self._joined_by: dict[int, ExplanationReason] = {}
        """How each membership of a rollout began, by its id."""

    async def explain_after(self, command: Command) -> None:
        if isinstance(command, PassTime):
            self._steps_passed += command.steps
        by_pass = isinstance(command, RunStep | FinishWork)
        joins = await self._sql.fetch(
            "SELECT membership_id FROM history WHERE operation = 'JOINED' AND cause = 'ROLLOUT'"
        )
        for (membership_id,) in joins:
            self._joined_by.setdefault(
                membership_id,
                ExplanationReason.IN_SAMPLE if by_pass else ExplanationReason.ENROLLED_WHEN_STORED,
            )
        if isinstance(command, UpdateMemberships | CreateUser | DeleteUser):
            self._recent = [command.user_id, *self._recent][:2]
        for user_id in {*self._random.sample(USERS, USERS_PER_COMMAND), *self._recent}:
            for slug in SLUGS:
                await self._explain(user_id, slug)

    async def _explain(self, user_id: int, slug: str) -> None:
        async with self._database.read() as session:
            explanation = await explain(session, user_id=user_id, slug=slug)
            is_in = (user_id, slug) in await active_pairs(session, [(user_id, slug)])
        assert explanation is not None
        assert explanation.is_in is is_in
        assert (explanation.reason in IN) is is_in
        assert all(step.passed for step in explanation.steps) or not is_in
        assert_all_known(explanation)
        if explanation.reason in BY_ROLLOUT:
            assert explanation.membership is not None
            joined_by = self._joined_by[explanation.membership.membership_id]
            assert explanation.reason == joined_by
        self._asked.append(Asked(user_id, slug, explanation, self._steps_passed))

    async def explain_again(self) -> None:
        """Ask again for every explanation, with its time as `asOf`."""
        for asked in self._asked:
            at = self._now(asked)
            async with self._database.read() as session:
                again = await explain(session, user_id=asked.user_id, slug=asked.slug, as_of=at)
                replayed = (await segments_as_of(session, [(asked.user_id, at)])).get(
                    (asked.user_id, at), []
                )
            assert again is not None
            assert again.at == at
            assert again.is_in is asked.explanation.is_in
            assert again.is_in is (asked.slug in {segment.slug for segment in replayed})
            if again.is_in:
                # The cause may have changed from ROLLOUT to MANUAL since. It has no history.
                assert again.reason in IN
            else:
                assert again.reason == asked.explanation.reason
                assert [step.check for step in again.steps] == [
                    step.check for step in asked.explanation.steps
                ]
            assert_all_known(again)
            assert self._shifted(asked, asked.explanation.since) == again.since

    def _now(self, asked: Asked) -> datetime:
        at = self._shifted(asked, asked.explanation.at)
        assert at is not None
        return at

    def _shifted(self, asked: Asked, at: datetime | None) -> datetime | None:
        """Return a time of an explanation, as the rows have it now."""
        if at is None:
            return None
        return at - timedelta(seconds=(self._steps_passed - asked.steps_passed) * STEP_SECONDS)


async def check_explanations(database: Database, sql: Sql, commands: Sequence[Command]) -> None:
    await empty_tables(sql)
    model = Model({slug: Segment(await make_segment(sql, slug)) for slug in SLUGS})
    real = ServiceUnderTest(database, sql)
    explanations = Explanations(database, sql)
    for number, command in enumerate(commands):
        model.now = (model.now[0], number)
        await command.run(model, real)
        await explanations.explain_after(command)
    await explanations.explain_again()


async def test_explanations_of_a_long_history(sql: Sql, database: Database) -> None:
    """Takes more than a second, because each of its commands is followed by six explanations."""
    await check_explanations(
        database,
        sql,
        [
            InsertUsers(1, 20),
            SetPlan("A", (("50", 0), ("10", 1), ("75", 2)), expires_after=2),
            RunStep("A"),
            UpdateMemberships(3, ("A",), ("B",), ttl=1),
            FinishWork("A"),
            InsertUsers(21, 5),
            Pause("A"),
            PassTime(1),
            DeleteUser(4),
            Resume("A"),
            RecordExpiry(),
            RunStep("A"),
            FinishWork("A"),
            CreateUser(4),
            SetPlan("B", (("33.333", 0),), enroll_new_users=False),
            FinishWork("B"),
            InsertUsers(26, 5),
            PassTime(2),
            FinishWork("A"),
            Cancel("B", withdraw=True),
            FinishWork("B"),
            PassTime(2),
        ],
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=command_lists())
@example(commands=INTERRUPTED_LOWERING)
@pytest.mark.slow
async def test_explanations_of_random_histories(
    sql: Sql, database: Database, commands: list[Command]
) -> None:
    await check_explanations(database, sql, commands)
