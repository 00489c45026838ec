"""Jobs of rollouts, and how the scheduler finds what their messages lost."""

import structlog

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE, Actor, Message
from segmentql.adapters.scheduler import Watch
from segmentql.errors import TimedOut, Unavailable
from segmentql.rollouts import passes

log = structlog.get_logger(__name__)

TOO_SLOW = "the database took too long, or somebody held what the rollout needed, again and again"
FAULT = "a fault of ours, again and again; the worker's log has it"


async def advance_rollout(database: Database, segment_id: int) -> None:
    try:
        await _advance(database, segment_id)
    except Unavailable:
        raise  # and no progress is lost, nor is it the rollout's failure
    except Exception as error:
        reason = TOO_SLOW if isinstance(error, TimedOut) else FAULT
        await database.transaction(lambda session: passes.note_failure(session, segment_id, reason))
        raise


async def _advance(database: Database, segment_id: int) -> None:
    sampling = await database.transaction(lambda session: passes.advance(session, segment_id))
    if sampling is None:
        return
    # A transaction of its own, which changes nothing: it may take long, and holds up nobody.
    async with database.long_read(seconds=passes.SAMPLE_SECONDS) as reading:
        sample = await passes.take_sample(reading, sampling)
    if sample is not None:
        await database.transaction(lambda session: passes.store_sample(session, sampling, sample))


async def find_due(database: Database) -> list[Message]:
    """What must be sent so that every rollout goes on, and every due stage starts."""
    async with database.read() as session:
        due = await passes.due_rollouts(session)
    return [Message(ADVANCE_ROLLOUT, (segment_id,)) for segment_id in due]


ACTORS = (
    Actor(ADVANCE_ROLLOUT, advance_rollout),
    Actor(START_ROLLOUT_STAGE, advance_rollout),
)

WATCHES = (Watch(find_due),)
