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
RESEND_SECONDS: Final = 2.0
"""The same message again only after so long: its work may be under way."""

_TAKE_LEASE = text("""
INSERT INTO leases (name, holder, expires_at)
VALUES (:name, :holder, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at < clock_timestamp()
RETURNING holder
""")

_DROP_LEASE = text("""
UPDATE leases SET expires_at = clock_timestamp() WHERE name = :name AND holder = :holder
""")


@contextlib.contextmanager
def _faults_logged(event: str, **fields: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        log.exception(event, **fields)
        if "watch" in fields:
            metrics.WATCH_FAILURES.labels(fields["watch"]).inc()


@dataclass(frozen=True)
class Watch:
    """Looks, every so often, for what must be done; what it finds is sent as messages."""

    look: Callable[[Database], Awaitable[Sequence[Message]]]
    every_seconds: float = TICK_SECONDS

    @property
    def name(self) -> str:
        """Where it is, for logs and metrics: `memberships.find_due`."""
        feature = self.look.__module__.removeprefix("segmentql.").removesuffix(".actors")
        return f"{feature}.{self.look.__name__}"


Watches: TypeAlias = Sequence[Watch]


class Scheduler:
    """Runs the watches while it holds the lease."""

    def __init__(
        self, database: Database, watches: Watches, deliver: Callable[[Sequence[Message]], None]
    ) -> None:
        self._database = database
        self._watches = watches
        self._deliver = deliver
        self._holder = uuid.uuid4().hex
        self._looked: dict[Watch, float] = {}
        self._sent: dict[Message, float] = {}

    async def run(self) -> None:
        """Tick until cancelled; a fault is logged and the next tick tries again."""
        try:
            while True:
                with _faults_logged("scheduler_failed"):
                    await self.tick()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            metrics.SCHEDULER_LEADER.set(0)
            # A standby need not wait for the lease to run out.
            with contextlib.suppress(Exception):
                await self._database.transaction(self._drop_lease)

    async def tick(self) -> None:
        """Look once with each watch that is due, if the lease is ours or free.

        A watch that fails is due again at the next tick, and keeps no other from looking.
        """
        leads = False
        try:
            leads = await self._database.transaction(self._take_lease)
        finally:  # whoever cannot ask does not act either
            metrics.SCHEDULER_LEADER.set(leads)
        if not leads:
            return
        now = time.monotonic()
        self._sent = {m: at for m, at in self._sent.items() if now - at < RESEND_SECONDS}
        for watch in self._watches:
            if now - self._looked.get(watch, -watch.every_seconds) < watch.every_seconds:
                continue
            with _faults_logged("watch_failed", watch=watch.name):
                messages = [m for m in await watch.look(self._database) if m not in self._sent]
                self._looked[watch] = now
                self._sent.update(dict.fromkeys(messages, now))
                self._deliver(messages)

    async def _take_lease(self, session: WriteSession) -> bool:
        values = {"name": LEASE, "holder": self._holder, "seconds": LEASE_SECONDS}
        return (await session.execute(_TAKE_LEASE, values)).one_or_none() is not None

    async def _drop_lease(self, session: WriteSession) -> None:
        await session.execute(_DROP_LEASE, {"name": LEASE, "holder": self._holder})
