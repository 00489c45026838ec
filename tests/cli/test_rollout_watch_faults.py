"""`segmentql rollout watch` while the database is away."""

import functools

import pytest

from segmentql.settings import Settings
from tests.cli.watcher import Watch, see_users, start_rollout
from tests.conftest import Api, Sql, until
from tests.line import Line

pytestmark = pytest.mark.slow  # each test starts a process of the command and stops a server


async def test_a_database_that_is_away_for_a_while_does_not_end_it(
    settings: Settings, watch: Watch, api: Api, sql: Sql
) -> None:
    await start_rollout(api, percent=10)
    async with (
        Line(settings.database_url).open() as line,
        watch("A", SEGMENTQL_DATABASE_URL=line.url) as watcher,
    ):
        await watcher.has_told(1)
        line.cut()
        await until(functools.partial(line.has_been_tried, line.tries + 10))
        await see_users(sql, 50, 100)
        line.mend()
        await watcher.has_told(2)
        assert watcher.process.returncode is None
    assert watcher.lines[1:] == ["50 %: 50 of 100 users seen"]
    assert watcher.errors.splitlines() == [
        "The database does not answer; still trying.",
        "The database answers again.",
    ]


async def test_a_database_that_is_away_at_first_is_told_and_ends_it_with_1(
    watch: Watch, api: Api
) -> None:
    nowhere = "postgresql+asyncpg://user:password@127.0.0.1:1/database"
    async with watch("A", SEGMENTQL_DATABASE_URL=nowhere) as watcher:
        assert await watcher.ends() == 1
    assert watcher.errors == "Error: The database does not answer; `segmentql doctor` says more.\n"
