"""Background jobs of rollouts, and how the scheduler finds rollouts whose message was lost."""

import time
from typing import Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import JobActor, Message
from segmentql.adapters.scheduler import PeriodicCheck
from segmentql.errors import TimedOut, Unavailable
from segmentql.rollouts import passes, sampling
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE

MAX_RUN_SECONDS: Final = 5
"""How long one job works before it enqueues its continuation."""

TIMEOUT_FAILURE: Final = (
    "repeated timeouts: the database was too slow, or other transactions locked users for too long"
)
INTERNAL_FAILURE: Final = "repeated internal errors; see the worker's log"


async def advance_rollout(database: Database, segment_id: int) -> None:
    """Run steps for up to `MAX_RUN_SECONDS`, then enqueue a message if more steps are due.

    A message for each step would take twice as long, because a worker polls for each message.
    """
    deadline = time.monotonic() + MAX_RUN_SECONDS
    try:
        while await _run_step(database, segment_id):
            if time.monotonic() > deadline:
                await database.transaction(lambda s: passes.enqueue_continuation(s, segment_id))
                return
    except Unavailable:
        raise  # Not a failure of the rollout: the job is retried and continues at the cursor.
    except Exception as error:
        reason = TIMEOUT_FAILURE if isinstance(error, TimedOut) else INTERNAL_FAILURE
        await database.transaction(lambda s: passes.record_failure(s, segment_id, reason))
        raise


async def _run_step(database: Database, segment_id: int) -> bool:
    """Run one step; return whether another step is due."""
    outcome = await database.transaction(lambda session: passes.advance(session, segment_id))
    if not isinstance(outcome, sampling.PendingSample):
        return outcome is passes.StepOutcome.MORE_WORK
    # A read-only transaction of its own: it may take long, and blocks no other transaction.
    async with database.long_read(seconds=sampling.SAMPLE_TIMEOUT_SECONDS) as session:
        sample = await sampling.take_sample(session, outcome)
    if sample is None:
        return False
    await database.transaction(lambda session: sampling.store_sample(session, outcome, sample))
    return True


async def find_due(database: Database) -> list[Message]:
    """Return a message for each stalled rollout and each due stage."""
    async with database.read() as session:
        due = await passes.find_due_rollouts(session)
    return [Message(ADVANCE_ROLLOUT, (segment_id,)) for segment_id in due]


async def seconds_to_next(database: Database) -> float | None:
    """Return the seconds until the next stage starts or a rollout counts as stalled."""
    async with database.read() as session:
        return await passes.seconds_to_next(session)


ACTORS = (
    JobActor(ADVANCE_ROLLOUT, advance_rollout),
    JobActor(START_ROLLOUT_STAGE, advance_rollout),
)

PERIODIC_CHECKS = (PeriodicCheck(find_due, seconds_to_next=seconds_to_next),)
