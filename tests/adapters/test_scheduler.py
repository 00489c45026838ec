"""The scheduler: one of several acts, another takes over, and no watch can stop the others."""

import asyncio
import time
from collections.abc import Sequence

import pytest
import structlog.testing
from prometheus_client import REGISTRY
from sqlalchemy.exc import ProgrammingError

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.scheduler import (
    GRACE_SECONDS,
    IDLE_SECONDS,
    LEASE_SECONDS,
    MIN_PAUSE_SECONDS,
    RESEND_SECONDS,
    TICK_SECONDS,
    PeriodicCheck,
    Scheduler,
)
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from tests.conftest import Sql, until

MESSAGE = Message(EXPIRE_DUE_MEMBERSHIPS)


class Looking:
    """A watch that notes each look, finds `messages`, and fails the first `failures` times."""

    def __init__(
        self,
        *messages: Message,
        failures: int = 0,
        every_seconds: float = 0,
        seconds_to_next: float | None = None,
    ) -> None:
        self.looks = 0
        self.messages = messages
        self._failures = failures
        self._seconds_to_next = seconds_to_next
        self.watch = PeriodicCheck(
            self._look,
            every_seconds=every_seconds,
            seconds_to_next=self._next if every_seconds else None,
        )

    async def _next(self, database: Database) -> float | None:
        return self._seconds_to_next

    async def _look(self, database: Database) -> Sequence[Message]:
        self.looks += 1
        if self.looks <= self._failures:
            raise KeyError("a fault of this watch")
        return self.messages


def scheduler(database: Database, sent: list[Message], *watches: Looking) -> Scheduler:
    return Scheduler(database, [looking.watch for looking in watches], sent.extend)


async def test_of_two_schedulers_only_the_one_with_the_lease_looks(
    database: Database, sent: list[Message]
) -> None:
    first, second = Looking(), Looking()
    holder, standby = scheduler(database, sent, first), scheduler(database, sent, second)
    for _ in range(3):
        await holder.tick()
        await standby.tick()
    assert (first.looks, second.looks) == (3, 0)


def leads() -> float | None:
    return REGISTRY.get_sample_value("segmentql_scheduler_leader")


async def test_the_metrics_tell_who_acts(sql: Sql, database: Database, sent: list[Message]) -> None:
    holder, standby = scheduler(database, sent), scheduler(database, sent)
    await holder.tick()
    assert leads() == 1
    await standby.tick()  # as another process, whose gauge this would be
    assert leads() == 0
    await holder.tick()
    assert leads() == 1
    await sql.execute("REVOKE UPDATE ON leases FROM segmentql_service")
    try:
        with pytest.raises(ProgrammingError):
            await holder.tick()
    finally:
        await sql.execute("GRANT UPDATE ON leases TO segmentql_service")
    assert leads() == 0


async def test_a_watch_that_fails_is_counted_by_its_name(
    database: Database, sent: list[Message]
) -> None:
    name = "tests.adapters.test_scheduler._look"

    def failures() -> float:
        sample = "segmentql_periodic_check_failures_total"
        return REGISTRY.get_sample_value(sample, {"check": name}) or 0

    before = failures()
    await scheduler(database, sent, Looking(failures=1)).tick()
    assert failures() == before + 1


async def test_many_that_ask_at_once_elect_one(database: Database, sent: list[Message]) -> None:
    watches = [Looking() for _ in range(8)]
    await asyncio.gather(*(scheduler(database, sent, watch).tick() for watch in watches))
    assert sorted(watch.looks for watch in watches) == [0] * 7 + [1]


async def test_a_lease_that_ran_out_is_another_ones_and_stays_so(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    first, second = Looking(), Looking()
    dead, standby = scheduler(database, sent, first), scheduler(database, sent, second)
    await dead.tick()
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 us'")
    await standby.tick()
    await dead.tick()
    assert (first.looks, second.looks) == (1, 1)


async def test_each_tick_renews_the_lease(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    holder = scheduler(database, sent)
    await holder.tick()
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1 s'")
    await holder.tick()
    left = await sql.fetchval(
        "SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM leases"
    )
    assert LEASE_SECONDS - 1 < left <= LEASE_SECONDS


async def test_a_scheduler_that_stops_leaves_the_lease_to_the_next_at_once(
    database: Database, sent: list[Message]
) -> None:
    first, second = Looking(), Looking()
    running = asyncio.create_task(scheduler(database, sent, first).run())

    async def looked() -> bool:
        return first.looks > 0

    await until(looked)
    running.cancel()
    await asyncio.wait([running])
    await scheduler(database, sent, second).tick()
    assert second.looks == 1


async def test_a_watch_that_always_fails_keeps_no_other_from_looking(
    database: Database, sent: list[Message]
) -> None:
    failing, healthy = Looking(failures=1000), Looking(MESSAGE)
    ticking = scheduler(database, sent, failing, healthy)
    await ticking.tick()
    await ticking.tick()
    assert (failing.looks, healthy.looks) == (2, 2)
    assert sent == [MESSAGE]


async def test_a_watch_that_failed_looks_again_at_the_next_tick_however_seldom_it_looks(
    database: Database, sent: list[Message]
) -> None:
    seldom = Looking(MESSAGE, failures=1, every_seconds=3600)
    ticking = scheduler(database, sent, seldom)
    for _ in range(3):
        await ticking.tick()
    assert seldom.looks == 2
    assert sent == [MESSAGE]


async def test_while_nothing_is_due_the_scheduler_looks_seldom(
    database: Database, sent: list[Message]
) -> None:
    idle = Looking(every_seconds=3600)
    ticking = scheduler(database, sent, idle)
    for _ in range(3):
        assert await ticking.tick() <= IDLE_SECONDS
    assert idle.looks == 1
    assert IDLE_SECONDS < LEASE_SECONDS


@pytest.mark.parametrize(
    ("seconds_to_next", "interval_seconds"),
    [
        (None, IDLE_SECONDS),
        (-1.0, TICK_SECONDS),
        (0.1, TICK_SECONDS),
        (2.0, 2.0 + GRACE_SECONDS),
        (1e9, IDLE_SECONDS),
    ],
)
async def test_a_watch_looks_again_when_the_next_known_work_is_due(
    database: Database,
    sent: list[Message],
    seconds_to_next: float | None,
    interval_seconds: float,
) -> None:
    waiting = Looking(every_seconds=IDLE_SECONDS, seconds_to_next=seconds_to_next)
    ticking = scheduler(database, sent, Looking(every_seconds=3600), waiting)
    assert await ticking._run_check(waiting.watch, 0) == interval_seconds
    assert await ticking.tick() <= interval_seconds


async def test_while_there_is_work_and_after_a_failure_the_scheduler_looks_often(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    working = scheduler(database, sent, Looking(MESSAGE, every_seconds=3600))
    assert await working.tick() <= TICK_SECONDS
    assert sent == [MESSAGE]
    await sql.execute("DELETE FROM leases")
    failing = scheduler(database, sent, Looking(failures=1, every_seconds=3600))
    assert await failing.tick() <= TICK_SECONDS


async def test_a_standby_waits_until_the_lease_may_have_run_out(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await scheduler(database, sent).tick()
    standby = scheduler(database, sent)
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1.5 s'")
    assert await standby.tick() <= 1.5 + MIN_PAUSE_SECONDS
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1 hour'")
    assert await standby.tick() == IDLE_SECONDS


async def test_the_scheduler_goes_on_after_faults_of_the_database(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    looking = Looking()

    async def looked() -> bool:
        return looking.looks > 0

    async def failed() -> bool:
        return {"event": "scheduler_failed", "log_level": "error", "exc_info": True} in logged

    await sql.execute("REVOKE UPDATE ON leases FROM segmentql_service")
    running = asyncio.create_task(scheduler(database, sent, looking).run())
    try:
        with structlog.testing.capture_logs() as logged:
            await until(failed)
    finally:
        await sql.execute("GRANT UPDATE ON leases TO segmentql_service")
    assert looking.looks == 0
    await until(looked)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.slow
async def test_the_same_message_is_sent_again_only_after_a_while(
    database: Database, sent: list[Message]
) -> None:
    other = Message(RECORD_SEGMENT_LEAVES, (1,))
    looking = Looking(MESSAGE)
    ticking = scheduler(database, sent, looking)
    started = time.monotonic()
    await ticking.tick()
    looking.messages = (MESSAGE, other)
    await ticking.tick()
    assert sent == [MESSAGE, other]

    async def sent_again() -> bool:
        await ticking.tick()
        return len(sent) > 2

    await until(sent_again)
    assert time.monotonic() - started >= RESEND_SECONDS
    assert sent[:3] == [MESSAGE, other, MESSAGE]
