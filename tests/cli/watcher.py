"""`segmentql rollout watch` as tests run it, and what they give it to watch."""

import asyncio
import functools
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from tests.conftest import PATIENCE_SECONDS, Api, Sql, until
from tests.operations import create_segment

LOOKED = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'segmentql rollout watch' AND query_start > $1 AND state = 'idle'
"""


class Watcher:
    """A running `segmentql rollout watch`, whose output goes to files."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path, errors: Path) -> None:
        self.process = process
        self._output = output
        self._errors = errors

    @property
    def lines(self) -> list[str]:
        """What it has told, without times; each line begins with one."""
        lines = self._output.read_text().splitlines()
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d ", line)] == []
        return [re.sub(r"UTC, in \d:\d\d:\d\d$", "UTC, in D", line[9:]) for line in lines]

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    async def has_told(self, count: int) -> None:
        """Wait until it has told so many lines; fail at once when it ends instead."""

        async def told() -> bool:
            assert self.process.returncode is None, self.errors
            return len(self.lines) >= count

        await until(told)

    async def ends(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def has_looked_again(self, sql: Sql) -> None:
        """Wait until it has asked for what is in the database by now, and taken the answer in."""
        for _ in range(2):  # at the second look the first one's answer is dealt with
            now = await sql.fetchval("SELECT clock_timestamp()")
            await until(functools.partial(sql.fetchval, LOOKED, now))


Watch: TypeAlias = Callable[..., AbstractAsyncContextManager[Watcher]]


async def start_rollout(api: Api, **rollout: object) -> None:
    payload = await create_segment(api, slug="A", rollout=rollout)
    assert payload["errors"] == []


async def see_users(sql: Sql, seen: int, total: int) -> None:
    """As if a worker had come so far with the first stage."""
    await sql.execute(
        "UPDATE rollouts SET phase = 'WORKING', stage = 1, users_seen = $1, users_total = $2,"
        " reach = (SELECT percent FROM rollout_stages WHERE number = 1)",
        seen,
        total,
    )
