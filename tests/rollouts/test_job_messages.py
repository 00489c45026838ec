"""Changes of rollouts enqueue messages and leave the rest to the scheduler."""

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.errors import MutationRejected
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.principal import NO_ACTOR
from segmentql.rollouts import service
from segmentql.rollouts.actors import advance_rollout, seconds_to_next
from segmentql.rollouts.jobs import ADVANCE_ROLLOUT, START_ROLLOUT_STAGE
from segmentql.rollouts.passes import STALLED_AFTER_SECONDS
from tests.back_dating import advance_time, all_rows
from tests.conftest import Sql
from tests.rollouts.helpers import cancel, read_rollout, set_plan, stage
from tests.timeline import HOUR, SECOND, database_now, make_segment


async def pause(database: Database) -> None:
    await database.transaction(
        lambda session: service.pause_rollout(session, slug="A", actor=NO_ACTOR)
    )


async def resume(database: Database) -> None:
    await database.transaction(
        lambda session: service.resume_rollout(session, slug="A", actor=NO_ACTOR)
    )


async def test_setting_a_percent_enqueues_an_advance_message(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_only_events_within_a_minute_get_delayed_messages(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    later = [stage(20, after=30 * SECOND), stage(30, after=20 * SECOND)]
    end = await database_now(sql) + 55 * SECOND
    rollout = await set_plan(database, "A", stage(10), *later, expires_at=end)
    # Delays count from the time when the rollout was read.
    waits = [(start - rollout.read_at).total_seconds() for start in [*rollout.start_times[1:], end]]
    assert sent == [
        Message(ADVANCE_ROLLOUT, (segment_id,)),
        Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=waits[0]),
        Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=waits[1]),
        Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=waits[2]),
    ]
    sent.clear()
    far = [stage(20, after=61 * SECOND), stage(30, after=HOUR)]
    await set_plan(database, "A", stage(10), *far, expires_at=await database_now(sql) + 2 * HOUR)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_future_plan_without_members_enqueues_no_advance(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    rollout = await set_plan(database, "A", stage(10, after=30 * SECOND))
    wait = (rollout.start_times[0] - rollout.read_at).total_seconds()
    assert sent == [Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=wait)]
    sent.clear()
    await set_plan(database, "A", stage(10, after=HOUR))
    assert sent == []


async def test_future_plan_with_members_enqueues_their_removal(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    sent.clear()
    await set_plan(database, "A", stage(10, after=HOUR))
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_finished_stage_enqueues_the_next_one_within_a_minute(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=90 * SECOND))
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]
    sent.clear()
    await advance_time(sql, 45 * SECOND)
    await advance_rollout(database, segment_id)
    (message,) = sent
    assert (message.job, message.args) == (START_ROLLOUT_STAGE, (segment_id,))
    assert 0 < message.delay_seconds <= 45


async def test_rejected_plan_enqueues_nothing(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    before = await all_rows(sql)
    ended = await database_now(sql) - SECOND
    with pytest.raises(MutationRejected):
        await set_plan(database, "A", 50, expires_at=ended)
    assert sent == []
    assert await all_rows(sql) == before


async def test_pausing_and_cancelling_enqueue_nothing(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    sent.clear()
    await pause(database)
    await cancel(database, "A")
    assert sent == []


async def test_withdrawing_enqueues_only_an_advance_message(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    sent.clear()
    await cancel(database, "A", withdraw=True)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_resuming_enqueues_the_messages_dropped_during_the_pause(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    await pause(database)
    await advance_time(sql, HOUR)
    sent.clear()
    await resume(database)
    rollout = await read_rollout(database, segment_id)
    advance, start = sent
    assert advance == Message(ADVANCE_ROLLOUT, (segment_id,))
    assert (start.job, start.args) == (START_ROLLOUT_STAGE, (segment_id,))
    # This read is later than the one from which the delay was computed.
    remaining_seconds = (rollout.start_times[1] - rollout.read_at).total_seconds()
    assert remaining_seconds < start.delay_seconds < 30


async def test_resuming_between_stages_enqueues_no_advance(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=HOUR))
    await advance_rollout(database, segment_id)
    await pause(database)
    sent.clear()
    await resume(database)
    assert sent == []


async def test_scheduler_is_due_when_the_next_stage_starts(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    assert await seconds_to_next(database) is None
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10, after=30 * SECOND), stage(20, after=HOUR))
    assert 1 < await _seconds(database) <= 30
    await pause(database)
    assert await seconds_to_next(database) is None
    await resume(database)
    assert 1 < await _seconds(database) <= 30
    await advance_time(sql, 45 * SECOND)
    assert await _seconds(database) < 0  # the stage is due
    await advance_rollout(database, segment_id)
    assert 60 < await _seconds(database) <= 3600
    await advance_time(sql, HOUR)
    await advance_rollout(database, segment_id)
    assert await seconds_to_next(database) is None


async def test_scheduler_is_due_when_a_rollout_is_stalled(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    assert await _seconds(database) <= STALLED_AFTER_SECONDS
    await cancel(database, "A")
    assert await seconds_to_next(database) is None


async def _seconds(database: Database) -> float:
    seconds = await seconds_to_next(database)
    assert seconds is not None
    return seconds
