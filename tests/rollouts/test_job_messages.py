"""Which messages a change of a rollout has sent, and which it leaves to the scheduler."""

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import (
    ADVANCE_ROLLOUT,
    END_DUE_MEMBERSHIPS,
    START_ROLLOUT_STAGE,
    Message,
)
from segmentql.errors import Refused
from segmentql.rollouts import service
from segmentql.rollouts.actors import advance_rollout, seconds_to_next
from segmentql.rollouts.passes import STALLED_AFTER_SECONDS
from tests.conftest import Sql
from tests.past import contents, let_pass
from tests.rollouts.helpers import cancel, rollout_of, set_plan, stage
from tests.timeline import HOUR, SECOND, clock, make_segment


async def pause(database: Database) -> None:
    await database.transaction(lambda session: service.pause_rollout(session, slug="A"))


async def resume(database: Database) -> None:
    await database.transaction(lambda session: service.resume_rollout(session, slug="A"))


async def test_a_percent_has_a_worker_begin_at_once(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_stages_and_an_end_within_a_minute_have_a_message_come_then_and_later_ones_do_not(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    later = [stage(20, after=30 * SECOND), stage(30, after=20 * SECOND)]
    end = await clock(sql) + 55 * SECOND
    rollout = await set_plan(database, "A", stage(10), *later, expires_at=end)
    # As long as it is from when the rollout was read, which is a moment after it began.
    waits = [(start - rollout.read_at).total_seconds() for start in [*rollout.start_times[1:], end]]
    assert sent == [
        Message(ADVANCE_ROLLOUT, (segment_id,)),
        Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=waits[0]),
        Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=waits[1]),
        Message(END_DUE_MEMBERSHIPS, delay_seconds=waits[2]),
    ]
    sent.clear()
    far = [stage(20, after=61 * SECOND), stage(30, after=HOUR)]
    await set_plan(database, "A", stage(10), *far, expires_at=await clock(sql) + 2 * HOUR)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_nothing_is_begun_before_the_first_stage_where_nobody_is_to_be_taken_out(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    rollout = await set_plan(database, "A", stage(10, after=30 * SECOND))
    wait = (rollout.start_times[0] - rollout.read_at).total_seconds()
    assert sent == [Message(START_ROLLOUT_STAGE, (segment_id,), delay_seconds=wait)]
    sent.clear()
    await set_plan(database, "A", stage(10, after=HOUR))
    assert sent == []


async def test_a_plan_that_begins_later_has_a_worker_take_out_whom_the_earlier_one_brought_in(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", 50)
    sent.clear()
    await set_plan(database, "A", stage(10, after=HOUR))
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_a_worker_that_is_done_with_a_stage_has_a_message_come_for_one_that_is_near_by_now(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=90 * SECOND))
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]
    sent.clear()
    await let_pass(sql, 45 * SECOND)
    await advance_rollout(database, segment_id)
    (message,) = sent
    assert (message.job, message.args) == (START_ROLLOUT_STAGE, (segment_id,))
    assert 0 < message.delay_seconds <= 45


async def test_a_refused_plan_sends_nothing(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    before = await contents(sql)
    ended = await clock(sql) - SECOND
    with pytest.raises(Refused):
        await set_plan(database, "A", 50, expires_at=ended)
    assert sent == []
    assert await contents(sql) == before


async def test_to_pause_and_to_cancel_sends_nothing(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    sent.clear()
    await pause(database)
    await cancel(database, "A")
    assert sent == []


async def test_to_withdraw_has_a_worker_begin_at_once_and_no_stage_start(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    sent.clear()
    await cancel(database, "A", withdraw=True)
    assert sent == [Message(ADVANCE_ROLLOUT, (segment_id,))]


async def test_to_resume_sends_what_the_pause_made_workers_pass_over(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=30 * SECOND))
    await pause(database)
    await let_pass(sql, HOUR)
    sent.clear()
    await resume(database)
    rollout = await rollout_of(database, segment_id)
    advance, start = sent
    assert advance == Message(ADVANCE_ROLLOUT, (segment_id,))
    assert (start.job, start.args) == (START_ROLLOUT_STAGE, (segment_id,))
    # The read that follows is a little later than the one that the message was made by.
    left = (rollout.start_times[1] - rollout.read_at).total_seconds()
    assert left < start.delay_seconds < 30


async def test_to_resume_what_was_between_two_stages_has_no_worker_begin(
    sql: Sql, database: Database, sent: list[Message]
) -> None:
    segment_id = await make_segment(sql, "A")
    await set_plan(database, "A", stage(10), stage(20, after=HOUR))
    await advance_rollout(database, segment_id)
    await pause(database)
    sent.clear()
    await resume(database)
    assert sent == []


async def test_the_scheduler_learns_when_the_next_stage_starts(
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
    await let_pass(sql, 45 * SECOND)
    assert await _seconds(database) < 0  # the stage is due
    await advance_rollout(database, segment_id)
    assert 60 < await _seconds(database) <= 3600
    await let_pass(sql, HOUR)
    await advance_rollout(database, segment_id)
    assert await seconds_to_next(database) is None


async def test_the_scheduler_learns_when_a_rollout_without_progress_is_due(
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
