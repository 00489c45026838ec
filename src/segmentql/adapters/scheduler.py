"""The scheduler: finds work without a message, or whose message was lost.

Every worker runs a scheduler. A row of `leases` elects the leader, so that a standby takes over if
the leader dies. A session-level advisory lock is not safe for this: behind a pooler in transaction
mode, two clients can hold it at once.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from sqlalchemy import text

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.adapters.outages import log_error
from segmentql.adapters.sessions import WriteSession

log = structlog.get_logger(__name__)

LEASE: Final = "scheduler"
LEASE_SECONDS: Final = 5
"""The duration of the lease. If its holder does not renew it, another worker can take it."""

TICK_SECONDS: Final = 1.0
"""The interval between runs of a check while it finds work, and after a failure."""

IDLE_SECONDS: Final = 3.0
"""The default interval between runs of a check, and the maximum interval between renewals of the
lease. If a message is lost, a check with this interval finds its work after it at the latest."""

GRACE_SECONDS: Final = 0.2
"""How long the scheduler waits after work is due, because a message normally starts it."""

MIN_PAUSE_SECONDS: Final = 0.1
RESEND_SECONDS: Final = 2.0
"""The minimum interval between two equal messages, because the first may be in progress."""

_TAKE_LEASE = text("""
INSERT INTO leases (name, holder, expires_at)
VALUES (:name, :holder, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at < clock_timestamp()
RETURNING holder
""")

_LEASE_REMAINING = text("""
SELECT CAST(extract(epoch FROM expires_at - clock_timestamp()) AS float8)
FROM leases WHERE name = :name
""")

_RELEASE_LEASE = text("""
UPDATE leases SET expires_at = clock_timestamp() WHERE name = :name AND holder = :holder
""")


@contextlib.contextmanager
def _log_errors(event: str, **fields: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is logged
        log_error(log, event, error, **fields)
        if "check" in fields:
            metrics.PERIODIC_CHECK_FAILURES.labels(fields["check"]).inc()


@dataclass(frozen=True)
class PeriodicCheck:
    """A check that runs at intervals. The scheduler sends the messages that it returns."""

    find_work: Callable[[Database], Awaitable[Sequence[Message]]]
    every_seconds: float = IDLE_SECONDS
    """The maximum interval between runs."""

    seconds_to_next: Callable[[Database], Awaitable[float | None]] | None = None
    """Returns the seconds until the next known work is due by the database's clock, or None.

    A check with this function runs earlier than after `every_seconds` if work is due earlier.
    """

    @property
    def name(self) -> str:
        """The name in logs and metrics, such as `memberships.find_due`."""
        feature = self.find_work.__module__.removeprefix("segmentql.").removesuffix(".actors")
        return f"{feature}.{self.find_work.__name__}"


PeriodicChecks: TypeAlias = Sequence[PeriodicCheck]


class Scheduler:
    """Runs the checks while it holds the lease."""

    def __init__(
        self,
        database: Database,
        periodic_checks: PeriodicChecks,
        publish: Callable[[Sequence[Message]], None],
    ) -> None:
        self._database = database
        self._periodic_checks = periodic_checks
        self._publish = publish
        self._holder = uuid.uuid4().hex
        self._next_run_at: dict[PeriodicCheck, float] = {}
        """In monotonic time. A check without an entry is due."""
        self._sent: dict[Message, float] = {}

    async def run(self) -> None:
        """Tick until cancelled. An error is logged, and the next tick retries."""
        try:
            while True:
                pause_seconds = TICK_SECONDS
                with _log_errors("scheduler_failed"):
                    pause_seconds = await self.tick()
                await asyncio.sleep(pause_seconds)
        finally:
            metrics.SCHEDULER_LEADER.set(0)
            # A standby then does not have to wait until the lease expires.
            with contextlib.suppress(Exception):
                await self._database.transaction(self._release_lease)

    async def tick(self) -> float:
        """Run each check that is due, if this worker holds or can take the lease.

        A check that fails is due again at the next tick and does not affect the other checks.

        Returns:
            The seconds until the next tick.
        """
        is_leader = False
        try:
            remaining_seconds = await self._database.transaction(self._take_lease)
            is_leader = remaining_seconds is None
        finally:  # even if the database is unavailable
            metrics.SCHEDULER_LEADER.set(is_leader)
        if remaining_seconds is not None:
            return _pause(remaining_seconds + MIN_PAUSE_SECONDS)
        now = time.monotonic()
        self._sent = {m: at for m, at in self._sent.items() if now - at < RESEND_SECONDS}
        next_tick = now + IDLE_SECONDS
        for check in self._periodic_checks:
            if self._next_run_at.get(check, now) <= now:
                self._next_run_at.pop(check, None)
                with _log_errors("periodic_check_failed", check=check.name):
                    self._next_run_at[check] = now + await self._run_check(check, now)
            next_tick = min(next_tick, self._next_run_at.get(check, now + TICK_SECONDS))
        return _pause(next_tick - time.monotonic())

    async def _run_check(self, check: PeriodicCheck, now: float) -> float:
        """Run a check, send its messages and return the seconds until its next run."""
        due = await check.find_work(self._database)
        messages = [message for message in due if message not in self._sent]
        self._sent.update(dict.fromkeys(messages, now))
        self._publish(messages)
        if check.seconds_to_next is None:
            return check.every_seconds
        if due:
            return TICK_SECONDS
        seconds = await check.seconds_to_next(self._database)
        if seconds is None:
            return check.every_seconds
        return min(max(seconds + GRACE_SECONDS, TICK_SECONDS), check.every_seconds)

    async def _take_lease(self, session: WriteSession) -> float | None:
        """Return None if this worker now holds the lease, else the seconds until it expires."""
        values = {"name": LEASE, "holder": self._holder, "seconds": LEASE_SECONDS}
        if (await session.execute(_TAKE_LEASE, values)).one_or_none() is not None:
            return None
        remaining: float = (await session.execute(_LEASE_REMAINING, {"name": LEASE})).scalar_one()
        return remaining

    async def _release_lease(self, session: WriteSession) -> None:
        await session.execute(_RELEASE_LEASE, {"name": LEASE, "holder": self._holder})


def _pause(seconds: float) -> float:
    """Return the time between two ticks, within its limits."""
    return min(max(seconds, MIN_PAUSE_SECONDS), IDLE_SECONDS)
