"""Steps of the worker that records leaves, and conditions for which tests wait."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from segmentql.adapters.sessions import WriteSession
from segmentql.memberships import expiry, service
from segmentql.principal import NO_ACTOR
from tests.conftest import Sql
from tests.timeline import database_now

MINUTE = timedelta(minutes=1)

update_user_segments = partial(service.update_user_segments, actor=NO_ACTOR)


async def members(sql: Sql) -> list[int]:
    return [row["user_id"] for row in await sql.fetch("SELECT * FROM memberships ORDER BY 1, 2")]


def expire_due(rows: int) -> Callable[[WriteSession], Awaitable[int]]:
    return partial(expiry.expire_due, rows=rows)


def record_leaves(segment_id: int, rows: int) -> Callable[[WriteSession], Awaitable[bool]]:
    return partial(expiry.record_segment_leaves, segment_id=segment_id, rows=rows)


async def has_lock_waiter(sql: Sql) -> bool:
    return bool(
        await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'tests' AND wait_event_type = 'Lock'"
        )
    )


async def has_expired(sql: Sql, moment: datetime) -> bool:
    return moment < await database_now(sql)


async def is_waiting_or_done(sql: Sql, task: "asyncio.Task[Any]") -> bool:
    return task.done() or await has_lock_waiter(sql)
