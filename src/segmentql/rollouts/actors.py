"""Jobs of rollouts, and how the scheduler finds what their messages lost."""

import time
from typing import Final

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE, Actor, Message
from segmentql.adapters.scheduler import Watch
from segmentql.errors import TimedOut, Unavailable
from segmentql.rollouts import passes

TURN_SECONDS: Final = 5
TOO_SLOW: Final = "the database took too long, or somebody held users for too long, again and again"
FAULT: Final = "a fault of ours, again and again; the worker's log has it"


async def advance_rollout(database: Database, segment_id: int) -> None:
    """Work a turn; where there is more to do then, another message has whoever is free go on.

    Step by step through messages would take twice as long: each waits to be polled for.
    """
    turn_ends = time.monotonic() + TURN_SECONDS
    try:
        while await _step(database, segment_id):
            if time.monotonic() > turn_ends:
                await database.transaction(lambda s: passes.hand_over(s, segment_id))
                return
    except Unavailable:
        raise  # no progress is lost, and it is not the rollout that failed
    except Exception as error:
        reason = TOO_SLOW if isinstance(error, TimedOut) else FAULT
        await database.transaction(lambda s: passes.note_failure(s, segment_id, reason))
        raise


async def _step(database: Database, segment_id: int) -> bool:
    """Do one step; whether there is another."""
    done = await database.transaction(lambda session: passes.advance(session, segment_id))
    if not isinstance(done, passes.Sampling):
        return done is passes.Next.STEP
    # In a transaction of its own, which changes nothing: it may take long, and holds up nobody.
    async with database.long_read(seconds=passes.SAMPLE_SECONDS) as reading:
        sample = await passes.take_sample(reading, done)
    if sample is None:
        return False
    await database.transaction(lambda session: passes.store_sample(session, done, sample))
    return True


async def find_due(database: Database) -> list[Message]:
    """What must be sent so that every rollout goes on, and every due stage starts."""
    async with database.read() as session:
        due = await passes.due_rollouts(session)
    return [Message(ADVANCE_ROLLOUT, (segment_id,)) for segment_id in due]


async def seconds_to_next(database: Database) -> float | None:
    """Return how soon the next stage starts, or work that is under way counts as abandoned."""
    async with database.read() as session:
        return await passes.seconds_to_next(session)


ACTORS = (
    Actor(ADVANCE_ROLLOUT, advance_rollout),
    Actor(START_ROLLOUT_STAGE, advance_rollout),
)

WATCHES = (Watch(find_due, seconds_to_next=seconds_to_next),)
