"""A proxy to the database whose connections a test can cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import make_url


class NetworkLink:
    """A TCP proxy to the database that can be cut, and that counts connection attempts."""

    def __init__(self, url: str) -> None:
        self._database = make_url(url)
        self._pipes: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.attempts = 0
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["NetworkLink"]:
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

    def restore(self) -> None:
        self._is_cut = False

    async def was_attempted(self, count: int) -> bool:
        return self.attempts >= count

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        if self._is_cut:
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection(
            self._database.host, self._database.port
        )
        self._pipes |= {writer, server_writer}
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()
