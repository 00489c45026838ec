"""One scheduler of several holds the lease, and a failing check does not stop the others."""

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


class CountingCheck:
    """A periodic check that counts its runs and fails the first `failures` times."""

    def __init__(
        self,
        *messages: Message,
        failures: int = 0,
        every_seconds: float = 0,
        seconds_to_next: float | None = None,
    ) -> None:
        self.runs = 0
        self.messages = messages
        self._failures = failures
        self._seconds_to_next = seconds_to_next
        self.check = PeriodicCheck(
            self._run,
            every_seconds=every_seconds,
            seconds_to_next=self._seconds_until_next if every_seconds else None,
        )

    async def _seconds_until_next(self, database: Database) -> float | None:
        return self._seconds_to_next

    async def _run(self, database: Database) -> Sequence[Message]:
        self.runs += 1
        if self.runs <= self._failures:
            raise KeyError("a fault of this check")
        return self.messages


def scheduler(database: Database, sent: list[Message], *checks: CountingCheck) -> Scheduler:
    return Scheduler(database, [counting.check for counting in checks], sent.extend)


async def test_only_the_scheduler_with_the_lease_runs_checks(
    database: Database, sent: list[Message]
) -> None:
    first, second = CountingCheck(), CountingCheck()
    holder, standby = scheduler(database, sent, first), scheduler(database, sent, second)
    for _ in range(3):
        await holder.tick()
        await standby.tick()
    assert (first.runs, second.runs) == (3, 0)


def is_leader() -> float | None:
    return REGISTRY.get_sample_value("segmentql_scheduler_leader")


async def test_metric_shows_the_lease_holder(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    holder, standby = scheduler(database, sent), scheduler(database, sent)
    await holder.tick()
    assert is_leader() == 1
    await standby.tick()  # it stands for another process, which would own this gauge
    assert is_leader() == 0
    await holder.tick()
    assert is_leader() == 1
    await sql.execute("REVOKE UPDATE ON leases FROM segmentql_service")
    try:
        with pytest.raises(ProgrammingError):
            await holder.tick()
    finally:
        await sql.execute("GRANT UPDATE ON leases TO segmentql_service")
    assert is_leader() == 0


async def test_failed_check_is_counted_by_name(database: Database, sent: list[Message]) -> None:
    name = "tests.adapters.test_scheduler._run"

    def failures() -> float:
        sample = "segmentql_periodic_check_failures_total"
        return REGISTRY.get_sample_value(sample, {"check": name}) or 0

    before = failures()
    await scheduler(database, sent, CountingCheck(failures=1)).tick()
    assert failures() == before + 1


async def test_concurrent_schedulers_elect_one_leader(
    database: Database, sent: list[Message]
) -> None:
    checks = [CountingCheck() for _ in range(8)]
    await asyncio.gather(*(scheduler(database, sent, check).tick() for check in checks))
    assert sorted(check.runs for check in checks) == [0] * 7 + [1]


async def test_expired_lease_is_taken_over_and_kept(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    first, second = CountingCheck(), CountingCheck()
    dead, standby = scheduler(database, sent, first), scheduler(database, sent, second)
    await dead.tick()
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 us'")
    await standby.tick()
    await dead.tick()
    assert (first.runs, second.runs) == (1, 1)


async def test_tick_renews_the_lease(sql: Sql, database: Database, sent: list[Message]) -> None:
    holder = scheduler(database, sent)
    await holder.tick()
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1 s'")
    await holder.tick()
    lease_end = await sql.fetchval(
        "SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM leases"
    )
    assert LEASE_SECONDS - 1 < lease_end <= LEASE_SECONDS


async def test_stopped_scheduler_releases_the_lease(
    database: Database, sent: list[Message]
) -> None:
    first, second = CountingCheck(), CountingCheck()
    running = asyncio.create_task(scheduler(database, sent, first).run())

    async def has_run() -> bool:
        return first.runs > 0

    await until(has_run)
    running.cancel()
    await asyncio.wait([running])
    await scheduler(database, sent, second).tick()
    assert second.runs == 1


async def test_failing_check_does_not_stop_other_checks(
    database: Database, sent: list[Message]
) -> None:
    failing, healthy = CountingCheck(failures=1000), CountingCheck(MESSAGE)
    ticking = scheduler(database, sent, failing, healthy)
    await ticking.tick()
    await ticking.tick()
    assert (failing.runs, healthy.runs) == (2, 2)
    assert sent == [MESSAGE]


async def test_failed_check_runs_again_at_the_next_tick(
    database: Database, sent: list[Message]
) -> None:
    rare = CountingCheck(MESSAGE, failures=1, every_seconds=3600)
    ticking = scheduler(database, sent, rare)
    for _ in range(3):
        await ticking.tick()
    assert rare.runs == 2
    assert sent == [MESSAGE]


async def test_idle_scheduler_runs_checks_rarely(database: Database, sent: list[Message]) -> None:
    idle = CountingCheck(every_seconds=3600)
    ticking = scheduler(database, sent, idle)
    for _ in range(3):
        assert await ticking.tick() <= IDLE_SECONDS
    assert idle.runs == 1
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
async def test_check_runs_when_the_next_known_work_is_due(
    database: Database,
    sent: list[Message],
    seconds_to_next: float | None,
    interval_seconds: float,
) -> None:
    counting_wait = CountingCheck(every_seconds=IDLE_SECONDS, seconds_to_next=seconds_to_next)
    ticking = scheduler(database, sent, CountingCheck(every_seconds=3600), counting_wait)
    assert await ticking._run_check(counting_wait.check, 0) == interval_seconds
    assert await ticking.tick() <= interval_seconds


async def test_check_runs_often_with_work_or_after_a_failure(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    working = scheduler(database, sent, CountingCheck(MESSAGE, every_seconds=3600))
    assert await working.tick() <= TICK_SECONDS
    assert sent == [MESSAGE]
    await sql.execute("DELETE FROM leases")
    failing = scheduler(database, sent, CountingCheck(failures=1, every_seconds=3600))
    assert await failing.tick() <= TICK_SECONDS


async def test_standby_waits_until_the_lease_may_have_expired(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await scheduler(database, sent).tick()
    standby = scheduler(database, sent)
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1.5 s'")
    assert await standby.tick() <= 1.5 + MIN_PAUSE_SECONDS
    await sql.execute("UPDATE leases SET expires_at = clock_timestamp() + interval '1 hour'")
    assert await standby.tick() == IDLE_SECONDS


async def test_scheduler_continues_after_database_errors(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    counting = CountingCheck()

    async def has_run() -> bool:
        return counting.runs > 0

    async def failed() -> bool:
        return any(
            (line["event"], line["log_level"]) == ("scheduler_failed", "error")
            and isinstance(line["exc_info"], Exception)
            for line in logged
        )

    await sql.execute("REVOKE UPDATE ON leases FROM segmentql_service")
    running = asyncio.create_task(scheduler(database, sent, counting).run())
    try:
        with structlog.testing.capture_logs() as logged:
            await until(failed)
    finally:
        await sql.execute("GRANT UPDATE ON leases TO segmentql_service")
    assert counting.runs == 0
    await until(has_run)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.slow
async def test_same_message_is_sent_again_only_after_an_interval(
    database: Database, sent: list[Message]
) -> None:
    other = Message(RECORD_SEGMENT_LEAVES, (1,))
    counting = CountingCheck(MESSAGE)
    ticking = scheduler(database, sent, counting)
    started = time.monotonic()
    await ticking.tick()
    counting.messages = (MESSAGE, other)
    await ticking.tick()
    assert sent == [MESSAGE, other]

    async def sent_again() -> bool:
        await ticking.tick()
        return len(sent) > 2

    await until(sent_again)
    assert time.monotonic() - started >= RESEND_SECONDS
    assert sent[:3] == [MESSAGE, other, MESSAGE]
