"""A reader that follows the settled position reads every row once, whatever the writers do."""

import asyncio
import random

import pytest

from segmentql.adapters.database import Database
from segmentql.history.tracker import SettledPositionTracker
from tests.conftest import Sql
from tests.history.writers import Connect, RandomWriters, SettledReader, stored_rows
from tests.timeline import history_inconsistencies, make_segment, make_users

KILL_INTERVAL_SECONDS = 0.1


@pytest.mark.parametrize(
    ("writers", "transactions"), [(10, 40), pytest.param(20, 120, marks=pytest.mark.slow)]
)
async def test_reader_of_settled_positions_reads_every_row_once(
    database: Database, sql: Sql, connect: Connect, writers: int, transactions: int
) -> None:
    await make_users(sql, *RandomWriters.USERS)
    segment_ids = [await make_segment(sql, f"S{number}") for number in range(3)]
    fleet = RandomWriters(connect, segment_ids)
    reader = SettledReader(database, SettledPositionTracker(database))

    async def kill_backends() -> None:
        dice = random.Random(0)  # noqa: S311 - similar each time
        while True:
            await asyncio.sleep(KILL_INTERVAL_SECONDS)
            await fleet.kill_one(sql, dice)

    background = [asyncio.create_task(reader.follow()), asyncio.create_task(kill_backends())]
    await asyncio.gather(*(fleet.run(number, transactions) for number in range(writers)))
    assert not any(task.done() for task in background)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await reader.read()

    assert reader.rows == await stored_rows(sql)
    assert reader.batches > writers
    assert await history_inconsistencies(sql) == {}
