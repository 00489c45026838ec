"""The scheduler finds unrecorded leaves, and the time of the next expiry."""

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.memberships import actors, expiry
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES
from tests.conftest import Sql
from tests.memberships.expiry_helpers import MINUTE
from tests.timeline import SECOND, add_membership, make_segment, mark_deleted


async def test_scheduler_gets_the_time_of_the_next_expiry(sql: Sql, database: Database) -> None:
    assert await actors.seconds_to_next(database) is None
    segment_id = await make_segment(sql, "A")
    await add_membership(sql, 1, segment_id)
    assert await actors.seconds_to_next(database) is None
    await add_membership(sql, 2, segment_id, ends_in=MINUTE)
    await add_membership(sql, 3, segment_id, ends_in=60 * MINUTE)
    seconds = await actors.seconds_to_next(database)
    assert seconds is not None
    assert 0 < seconds <= 60
    await add_membership(sql, 4, segment_id, ends_in=-SECOND)
    seconds = await actors.seconds_to_next(database)
    assert seconds is not None
    assert seconds < 0


async def test_check_finds_unrecorded_leaves(sql: Sql, database: Database) -> None:
    assert await actors.find_due(database) == []
    alive, deleted_segment = await make_segment(sql, "A"), await make_segment(sql, "B")
    await add_membership(sql, 1, alive)
    await add_membership(sql, 2, alive, ends_in=MINUTE)
    assert await actors.find_due(database) == []
    await add_membership(sql, 3, alive, ends_in=-SECOND)
    assert await actors.find_due(database) == [Message(EXPIRE_DUE_MEMBERSHIPS)]
    await add_membership(sql, 4, deleted_segment)
    await mark_deleted(sql, deleted_segment)
    assert await actors.find_due(database) == [
        Message(EXPIRE_DUE_MEMBERSHIPS),
        Message(RECORD_SEGMENT_LEAVES, (deleted_segment,)),
    ]
    async with database.read() as session:
        due = await expiry.unrecorded(session)
    assert (due.by_ttl, due.by_segment) == (1, 1)
