"""Helpers for tests of `segmentql rollout watch`: the running command, and test rollouts."""

import asyncio
import functools
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from tests.conftest import PATIENCE_SECONDS, Api, Sql, until
from tests.operations import create_segment

READS_SINCE = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'segmentql rollout watch' AND query_start > $1 AND state = 'idle'
"""


class WatchProcess:
    """A running `segmentql rollout watch`, whose output goes to files."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path, errors: Path) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    @property
    def lines(self) -> list[str]:
        """The printed lines without the time at the start of each."""
        lines = self._output.read_text().splitlines()
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d ", line)] == []
        return [re.sub(r"UTC, in \d:\d\d:\d\d$", "UTC, in D", line[9:]) for line in lines]

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    async def wait_for_lines(self, count: int) -> None:
        """Wait until this many lines are printed; fail immediately if the process ends."""

        async def printed() -> bool:
            assert self.process.returncode is None, self.errors
            return len(self.lines) >= count

        await until(printed)

    async def wait_for_exit(self) -> int:
        """Wait until the process ends; return its exit status."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def wait_for_poll(self, sql: Sql) -> None:
        """Wait until the command has read and processed the current state of the database."""
        for _ in range(2):  # The second read starts after the first result is processed.
            now = await sql.fetchval("SELECT clock_timestamp()")
            await until(functools.partial(sql.fetchval, READS_SINCE, now))


RunWatch: TypeAlias = Callable[..., AbstractAsyncContextManager[WatchProcess]]


async def create_rollout(api: Api, **rollout: object) -> None:
    payload = await create_segment(api, slug="A", rollout=rollout)
    assert payload["errors"] == []


async def set_progress(sql: Sql, users_seen: int, users_total: int) -> None:
    """Store the progress that a worker would store during the first stage."""
    await sql.execute(
        "UPDATE rollouts SET phase = 'WORKING', stage = 1, users_seen = $1, users_total = $2,"
        " max_percent = (SELECT percent FROM rollout_stages WHERE number = 1)",
        users_seen,
        users_total,
    )
