"""The recorder of leaves that have happened and that history does not have yet.

It works while the process has consumers. Reads hide a membership from its end on, but the feed has
only what is recorded. With the recorder, the feed does not depend on the workers. Several processes
may record at the same time.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.outages import log_error
from segmentql.adapters.sessions import ReadSession
from segmentql.memberships.expiry import expire_due, record_segment_leaves

log = structlog.get_logger(__name__)

TASK_NAME: Final = "unrecorded leaves for the change feed"

CHUNK_ROWS: Final = 1000
"""The maximum number of leaves in one transaction."""

MAX_CHUNKS: Final = 10
"""The maximum number of transactions of one step."""

CHECK_SECONDS: Final = 0.5
"""The longest pause between two steps. A TTL is at least one second, so none ends unnoticed."""

MIN_PAUSE_SECONDS: Final = 0.02
RETRY_SECONDS: Final = 0.1
"""The pause after a step that left some leaves, for instance because another process records them.
"""

_UNRECORDED = text("""
SELECT
    (SELECT CAST(extract(epoch FROM min(expires_at) - now()) AS float8) FROM memberships)
        AS seconds_to_next,
    ARRAY(
        SELECT id FROM segments WHERE deleted_at IS NOT NULL AND leaves_recorded_at IS NULL
        ORDER BY id LIMIT 100
    ) AS segment_ids
""")


@dataclass(frozen=True, slots=True)
class UnrecordedLeaves:
    """The leaves that have happened and are not recorded."""

    seconds_to_next: float | None
    """The time until the next membership expires. It is 0 or less if one has expired. None if no
    membership has a TTL."""

    segment_ids: list[int]
    """Deleted segments that have unrecorded leaves, up to 100."""

    @property
    def has_expired(self) -> bool:
        return self.seconds_to_next is not None and self.seconds_to_next <= 0


class UnrecordedLeaveRecorder:
    """Records leaves in one step for a caller, or all the time between `start` and `stop`."""

    def __init__(self, database: Database, *, on_recorded: Callable[[], None]) -> None:
        self._database = database
        self._on_recorded = on_recorded
        self._lock = asyncio.Lock()
        self._started_steps = 0
        self._completed_step = 0
        self._is_complete = False
        self._is_failing = False
        self._pause_seconds = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stopped: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Record leaves at their time, until `stop`."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=TASK_NAME)

    def stop(self) -> None:
        """Stop recording. A transaction in progress is rolled back."""
        if self._task is not None:
            self._task.cancel()
            self._stopped.add(self._task)
            self._task.add_done_callback(self._stopped.discard)
            self._task = None

    async def close(self) -> None:
        """Stop, and wait until the transaction in progress is rolled back."""
        self.stop()
        if self._stopped:
            await asyncio.wait(self._stopped)

    @property
    def is_complete(self) -> bool:
        """Whether the last step recorded all leaves that had happened."""
        return self._is_complete

    async def record(self) -> None:
        """Record the leaves that have happened at the call, in at most `MAX_CHUNKS` transactions.

        Calls during a step share the next one. `is_complete` has the result.

        Raises:
            Unavailable, TimedOut: The database cannot be used.
        """
        needed_step = self._started_steps + 1
        async with self._lock:
            if self._completed_step < needed_step:
                self._started_steps = step = self._started_steps + 1
                try:
                    self._is_complete = await self._step()
                except BaseException:
                    self._is_complete = False
                    raise
                self._completed_step = step
                self._is_failing = False

    @contextlib.contextmanager
    def log_errors(self) -> Iterator[None]:
        """Suppress errors of the block, and log the first one since the last complete step."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is logged
            if not self._is_failing:
                log_error(log, "leaves_not_recorded", error)
            self._is_failing = True

    async def _run(self) -> None:
        while True:
            self._pause_seconds = RETRY_SECONDS
            with self.log_errors():  # a later step may succeed
                await self.record()
            await asyncio.sleep(self._pause_seconds)

    async def _step(self) -> bool:
        attempted: set[int] = set()
        """The segments that are complete, or that another process is working on."""

        for _ in range(MAX_CHUNKS):
            leaves = await self._database.read_one(_read_unrecorded_leaves)
            if not leaves.has_expired and not leaves.segment_ids:
                self._pause_seconds = _pause(leaves.seconds_to_next)
                return True
            has_recorded = leaves.has_expired and await self._expire()
            segment_id = next((one for one in leaves.segment_ids if one not in attempted), None)
            if segment_id is not None and not await self._record_leaves(segment_id):
                attempted.add(segment_id)
            if segment_id is None and not has_recorded:
                break
        self._pause_seconds = RETRY_SECONDS
        return False

    async def _expire(self) -> bool:
        """Record a chunk of expired memberships; return whether there were any."""
        recorded = await self._database.transaction(partial(expire_due, rows=CHUNK_ROWS))
        self._on_recorded()
        return recorded > 0

    async def _record_leaves(self, segment_id: int) -> bool:
        """Record a chunk of leaves of a deleted segment; return whether there may be more."""
        has_more = await self._database.transaction(
            lambda session: record_segment_leaves(session, segment_id, rows=CHUNK_ROWS)
        )
        self._on_recorded()
        return has_more


async def _read_unrecorded_leaves(session: ReadSession) -> UnrecordedLeaves:
    row = (await session.execute(_UNRECORDED)).one()
    return UnrecordedLeaves(row.seconds_to_next, list(row.segment_ids))


def _pause(seconds_to_next: float | None) -> float:
    if seconds_to_next is None:
        return CHECK_SECONDS
    return min(max(seconds_to_next, MIN_PAUSE_SECONDS), CHECK_SECONDS)
