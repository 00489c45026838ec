"""`segmentql rollout watch` continues while the database is unreachable."""

import functools

import pytest

from segmentql.settings import Settings
from tests.cli.rollout_watch_process import RunWatch, create_rollout, set_progress
from tests.conftest import Api, Sql, until
from tests.network_cut import NetworkLink

pytestmark = pytest.mark.slow  # each test starts a process of the command and stops a server


async def test_continues_after_the_database_was_unreachable(
    settings: Settings, watch: RunWatch, api: Api, sql: Sql
) -> None:
    await create_rollout(api, percent=10)
    async with (
        NetworkLink(settings.database_url).open() as line,
        watch("A", SEGMENTQL_DATABASE_URL=line.url) as watcher,
    ):
        await watcher.wait_for_lines(1)
        line.cut()
        await until(functools.partial(line.was_attempted, line.attempts + 10))
        await set_progress(sql, 50, 100)
        line.restore()
        await watcher.wait_for_lines(2)
        assert watcher.process.returncode is None
    assert watcher.lines[1:] == ["50 %: 50 of 100 users processed"]
    assert watcher.errors.splitlines() == [
        "The database does not respond; retrying.",
        "The database responds again.",
    ]


async def test_unreachable_database_at_start_exits_with_1(watch: RunWatch, api: Api) -> None:
    nowhere = "postgresql+asyncpg://user:password@127.0.0.1:1/database"
    async with watch("A", SEGMENTQL_DATABASE_URL=nowhere) as watcher:
        assert await watcher.wait_for_exit() == 1
    assert (
        watcher.errors
        == "Error: The database does not respond. Run `segmentql doctor` for details.\n"
    )
