"""`segmentql rollout watch` while the database is away."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import make_url

from segmentql.settings import Settings
from tests.cli.watcher import Watch, see_users, start_rollout
from tests.conftest import Api, Sql, until


class Line:
    """A way to the database that can be cut; counts who tries to go it."""

    def __init__(self, url: str) -> None:
        self._database = make_url(url)
        self._pipes: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.tries = 0
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Line"]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        url = self._database.set(host=host, port=port)
        self.url = url.render_as_string(hide_password=False)
        async with server:
            yield self
            self.cut()

    def cut(self) -> None:
        self._is_cut = True
        for pipe in self._pipes:
            pipe.close()

    def mend(self) -> None:
        self._is_cut = False

    async def has_been_tried(self, count: int) -> bool:
        return self.tries >= count

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tries += 1
        if self._is_cut:
            writer.close()
            return
        back, on = await asyncio.open_connection(self._database.host, self._database.port)
        self._pipes |= {writer, on}
        await asyncio.gather(self._pump(reader, on), self._pump(back, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


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
