"""The scheduler: finds the work that no message asked for, or whose message was lost.

Every worker runs one; a row of `leases` elects the one that acts, so that a standby takes over
when it dies. (A session's advisory lock would not do: through a pooler in transaction mode two
clients can both hold it.)
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
from segmentql.adapters.database import Database, WriteSession
from segmentql.adapters.jobs import Message

log = structlog.get_logger(__name__)

LEASE: Final = "scheduler"
LEASE_SECONDS: Final = 5
"""After so long without a word from its holder, another may take the lease."""

TICK_SECONDS: Final = 1.0
"""The interval between looks while there is work, and after a failure."""

IDLE_SECONDS: Final = 3.0
"""The longest interval between looks and between renewals of the lease. A lost message about work
that was not yet known at the last look is noticed this late at most."""

GRACE_SECONDS: Final = 0.2
"""How long after the moment of known work the scheduler looks: a message should do it first."""

SHORTEST_PAUSE_SECONDS: Final = 0.1
RESEND_SECONDS: Final = 2.0
"""The same message again only after so long: its work may be under way."""

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
def _log_faults(event: str, **fields: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception(event, **fields)
        if "check" in fields:
            metrics.PERIODIC_CHECK_FAILURES.labels(fields["check"]).inc()


@dataclass(frozen=True)
class PeriodicCheck:
    """Looks, every so often, for what must be done; what it finds is sent as messages."""

    find_work: Callable[[Database], Awaitable[Sequence[Message]]]
    every_seconds: float = IDLE_SECONDS
    """The longest interval between looks."""

    seconds_to_next: Callable[[Database], Awaitable[float | None]] | None = None
    """Returns when, by the database's clock, the next work that is known is due; None: there is
    no such work. A watch that has this function looks earlier than `every_seconds` for it."""

    @property
    def name(self) -> str:
        """Where it is, for logs and metrics: `memberships.find_due`."""
        feature = self.find_work.__module__.removeprefix("segmentql.").removesuffix(".actors")
        return f"{feature}.{self.find_work.__name__}"


PeriodicChecks: TypeAlias = Sequence[PeriodicCheck]


class Scheduler:
    """Runs the watches while it holds the lease."""

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
        """By monotonic time."""
        self._sent: dict[Message, float] = {}

    async def run(self) -> None:
        """Tick until cancelled; a fault is logged and the next tick tries again."""
        try:
            while True:
                pause_seconds = TICK_SECONDS
                with _log_faults("scheduler_failed"):
                    pause_seconds = await self.tick()
                await asyncio.sleep(pause_seconds)
        finally:
            metrics.SCHEDULER_LEADER.set(0)
            # A standby need not wait for the lease to run out.
            with contextlib.suppress(Exception):
                await self._database.transaction(self._release_lease)

    async def tick(self) -> float:
        """Look once with each watch that is due, if the lease is ours or free.

        A watch that fails is due again at the next tick, and keeps no other from looking.

        Returns:
            The seconds until the next tick.
        """
        leads = False
        try:
            left_seconds = await self._database.transaction(self._take_lease)
            leads = left_seconds is None
        finally:  # a worker that cannot ask does not act either
            metrics.SCHEDULER_LEADER.set(leads)
        if left_seconds is not None:
            return _pause(left_seconds + SHORTEST_PAUSE_SECONDS)
        now = time.monotonic()
        self._sent = {m: at for m, at in self._sent.items() if now - at < RESEND_SECONDS}
        next_tick = now + IDLE_SECONDS
        for check in self._periodic_checks:
            if self._next_run_at.get(check, now) <= now:
                self._next_run_at.pop(check, None)
                with _log_faults("periodic_check_failed", check=check.name):
                    self._next_run_at[check] = now + await self._run_check(check, now)
            next_tick = min(next_tick, self._next_run_at.get(check, now + TICK_SECONDS))
        return _pause(next_tick - time.monotonic())

    async def _run_check(self, check: PeriodicCheck, now: float) -> float:
        """Send what a watch finds; return the seconds until its next look."""
        found = await check.find_work(self._database)
        messages = [message for message in found if message not in self._sent]
        self._sent.update(dict.fromkeys(messages, now))
        self._publish(messages)
        if check.seconds_to_next is None:
            return check.every_seconds
        if found:
            return TICK_SECONDS
        seconds = await check.seconds_to_next(self._database)
        if seconds is None:
            return check.every_seconds
        return min(max(seconds + GRACE_SECONDS, TICK_SECONDS), check.every_seconds)

    async def _take_lease(self, session: WriteSession) -> float | None:
        """Return None if the lease is ours, else the seconds until it may be."""
        values = {"name": LEASE, "holder": self._holder, "seconds": LEASE_SECONDS}
        if (await session.execute(_TAKE_LEASE, values)).one_or_none() is not None:
            return None
        left: float = (await session.execute(_LEASE_REMAINING, {"name": LEASE})).scalar_one()
        return left

    async def _release_lease(self, session: WriteSession) -> None:
        await session.execute(_RELEASE_LEASE, {"name": LEASE, "holder": self._holder})


def _pause(seconds: float) -> float:
    """Keep the time between two ticks within its bounds."""
    return min(max(seconds, SHORTEST_PAUSE_SECONDS), IDLE_SECONDS)
