"""An HTTP proxy to the service that loses and replaces chosen responses."""

import asyncio
import contextlib
import enum
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

OUTCOME_UNKNOWN: Final[dict[str, Any]] = {
    "data": None,
    "errors": [
        {
            "message": "The connection to the database was lost during the commit.",
            "extensions": {"code": "UNAVAILABLE", "outcomeUnknown": True},
        }
    ],
}
TOO_LARGE: Final[dict[str, Any]] = {
    "data": None,
    "errors": [
        {
            "message": "The response is too large.",
            "extensions": {"code": "LIMIT_EXCEEDED", "outcomeUnknown": True},
        }
    ],
}
FUTURE_EVENT: Final = {
    "__typename": "SegmentEvent",
    "cursor": "chg_x",
    "at": "2026-01-01T00:00:00Z",
}


class Fault(enum.Enum):
    """What happens to a request."""

    DROP = "the service executes it, and the connection is closed without a response"
    BUSY = "the response is 503 with Retry-After, and the service does not get the request"
    HANG = "there is no response, and the service does not get the request"
    UNKNOWN = "the service executes it, and the response says that the outcome is unknown"
    TOO_LARGE = "the service executes it, and the response says that the result is too large"


class FaultyProxy:
    """A proxy whose clients send requests with a Content-Length.

    `faults` has the faults of the next requests with a field. `attempts` counts the requests.
    """

    def __init__(self, target: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=target, timeout=90, headers={"accept-encoding": "identity"}
        )
        self._connections: set[asyncio.Task[None]] = set()
        self.address = ""
        self.faults: dict[str, list[Fault]] = {}
        self.attempts: Counter[str] = Counter()
        self.adds_future_events = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator["FaultyProxy"]:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = "http://{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            connections = [*self._connections]
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await self._http.aclose()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while response := await self._respond(reader):
                    writer.write(response)
                    await writer.drain()
        finally:  # also if the proxy stops during a request
            writer.close()
            self._connections.discard(task)

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        """Return the response to the next request; it is empty if the connection is to close."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip().split("\r\n")
        method, path, _ = request_line.split()
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        fault = self._next_fault(body.decode())
        if fault is Fault.HANG:
            await reader.read()  # until the client closes the connection
            return b""
        if fault is Fault.BUSY:
            return http_response(503, {"errors": []}, "retry-after: 1\r\n")
        forwarded = ("authorization", "content-type", "accept", "idempotency-key")
        response = await self._http.request(
            method,
            path,
            content=body,
            headers={name: headers[name] for name in forwarded if name in headers},
        )
        if fault is Fault.DROP:
            return b""
        replaced = {Fault.UNKNOWN: OUTCOME_UNKNOWN, Fault.TOO_LARGE: TOO_LARGE}
        result = replaced[fault] if fault in replaced else response.json()
        if self.adds_future_events and (changes := (result.get("data") or {}).get("changes")):
            changes["events"].insert(0, FUTURE_EVENT)
        return http_response(response.status_code, result)

    def _next_fault(self, body: str) -> Fault | None:
        for field, faults in self.faults.items():
            if f"{field}(" in body:
                self.attempts[field] += 1
                return faults.pop(0) if faults else None
        return None


def http_response(status: int, body: Any, headers: str = "") -> bytes:
    content = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{headers}"
        f"content-length: {len(content)}\r\n\r\n"
    ).encode() + content
