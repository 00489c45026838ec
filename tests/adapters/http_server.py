"""A uvicorn server in this event loop with a small application, and raw connections to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from segmentql.adapters.http_connections import ConnectionTable
from segmentql.adapters.http_protocol import limited_protocol

PATIENCE_SECONDS = 5


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        (error,) = orjson.loads(self.body)["errors"]
        return error


class Client:
    """A raw connection, as a careless or hostile client opens it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        """Read one response, and fail if it does not arrive within `PATIENCE_SECONDS`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._answer()

    async def _answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(head[0].split()[1]), headers, body)

    async def request(self, target: str = "/") -> Answer:
        self.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return await self.answer()

    async def rest(self) -> bytes:
        """Read until the server closes or resets the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def is_open(self) -> bool:
        """Return whether the connection is open and the server sends nothing for a short time."""
        try:
            async with asyncio.timeout(0.05):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@dataclass(frozen=True)
class RunningServer:
    """A running server."""

    port: int
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def disconnect(self) -> None:
        for client in self.clients:
            client.writer.close()
        await asyncio.gather(
            *(client.writer.wait_closed() for client in self.clients), return_exceptions=True
        )


@asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    limit: int = 100,
    keep_alive_seconds: float = 75,
    head_seconds: float = 10,
    **options: Any,
) -> AsyncIterator[RunningServer]:
    """Serve `app` on a free port, with limits that a test can reach."""
    table = ConnectionTable(
        limit=limit, keep_alive_seconds=keep_alive_seconds, head_seconds=head_seconds
    )
    config = uvicorn.Config(
        app,
        **{"http": limited_protocol(table), **options},
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    served = RunningServer(server.servers[0].sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        await served.disconnect()
        server.should_exit = True
        await running


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the request's headers and body as JSON; `/blind` does not read the body."""
    body = b""
    reads_body = scope["path"] != "/blind"
    while reads_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        reads_body = message.get("more_body", False)
    headers = [
        [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
    ]
    answer = orjson.dumps({"headers": headers, "body": body.decode("latin-1")})
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(answer)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": answer})
