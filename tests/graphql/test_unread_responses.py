"""Clients request large responses and do not read them, against a separate server.

Starting the server takes some two seconds, and each test waits for a deadline of a second or more.
"""

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from segmentql.graphql.http.response_sender import MAX_UNREAD_RESPONSES
from segmentql.settings import Settings
from tests.conftest import Sql, environment, until

MIB = 1024 * 1024
SEND_SECONDS = 2
USERS = 1000
LONGEST_READ_SECONDS = 5
"""A generous bound: a few hundredths on a quiet machine, but up to a second beside other tests."""


@dataclass
class Server:
    """A running `segmentql serve`."""

    pid: int
    port: int
    log: Path

    def memory(self, line: str = "VmHWM") -> int:
        """Return the peak memory in bytes, or with `VmRSS` the current memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        logged_events = re.search(rf"{line}:\s+(\d+) kB", status)
        assert logged_events
        return int(logged_events[1]) * 1024

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if event in {line["event"], None}]

    def levels(self) -> set[str]:
        return {line["level"] for line in self.lines()}

    def has_connection(self, client: socket.socket) -> bool:
        """Return whether a socket of a process is connected to the client's."""
        port = client.getsockname()[1]
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(
            row[1].endswith(f":{self.port:04X}") and row[2].endswith(f":{port:04X}") for row in rows
        )

    async def connect(self, query: str, **variables: Any) -> socket.socket:
        """Send a request and read nothing of its response."""
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        body = json.dumps({"query": query, "variables": variables}).encode()
        head = (
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        await loop.sock_sendall(client, head.encode() + body)
        return client


@pytest.fixture
async def server(settings: Settings, sql: Sql, tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server with as many users as one query may name."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, $1) AS n", USERS)
    async with running(settings, tmp_path / "log") as logged_events:
        yield logged_events


@asynccontextmanager
async def running(settings: Settings, log: Path) -> AsyncIterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {
        "SEGMENTQL_SEND_TIMEOUT_SECONDS": str(SEND_SECONDS),
        "SEGMENTQL_PORT": str(port),
        # `serve` warns if their pages are not built.
        "SEGMENTQL_CONSOLE": "off",
        "SEGMENTQL_GRAPHIQL": "off",
    }
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "serve"),
            env=environment(settings, **changes),
            stderr=errors,
        )
    try:
        await until(lambda: _is_ready(port))
        yield Server(process.pid, port, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_ready(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def large_query(megabytes: float) -> tuple[str, dict[str, Any]]:
    """Return a query within every limit whose response has about `megabytes`."""
    names = max(1, round(megabytes * 1_000_000 / 4 / USERS / 265))
    fields = " ".join(f"{n:03}".rjust(255, "a") + ": id" for n in range(names))
    roots = " ".join(f"a{n}: usersById(ids: $ids) {{ ...f }}" for n in range(4))
    query = f"query($ids: [ID!]!) {{ {roots} }} fragment f on User {{ {fields} }}"
    return query, {"ids": [str(n) for n in range(1, USERS + 1)]}


async def small_reads(server: Server, seconds: float) -> list[float]:
    """Return the times of sequential small reads, in seconds."""
    times = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.perf_counter()
            response = await client.post("/graphql", json={"query": "{ user(id: 1) { id } }"})
            times.append(time.perf_counter() - began)
            assert response.json()["data"] == {"user": {"id": "1"}}
            await asyncio.sleep(0.005)
    return sorted(times)


async def _is_gone(server: Server, client: socket.socket) -> bool:
    return not server.has_connection(client)


def report(times: list[float], grown: int) -> None:
    """Print the figures, which `pytest -s` shows."""
    p99 = times[int(len(times) * 0.99)]
    sys.stderr.write(
        f"{grown} MiB more; {len(times)} reads, median {times[len(times) // 2]:.4f} s,"
        f" p99 {p99:.4f} s, most {times[-1]:.4f} s\n"
    )


async def test_unread_response_is_dropped_with_its_connection(server: Server) -> None:
    query, variables = large_query(12)
    before = server.memory("VmRSS")
    client = await server.connect(query, **variables)
    await until(lambda: _is_logged(server, "response_not_read"))
    (line,) = server.lines("response_not_read")
    assert 11e6 < line["size"] < 13e6
    assert line["seconds"] == SEND_SECONDS
    await until(lambda: _is_gone(server, client))
    assert server.levels() <= {"info"}  # uvicorn logs no error
    client.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as readers:
        response = await readers.post("/graphql", json={"query": query, "variables": variables})
        assert len(response.content) == line["size"]
        assert len(response.json()["data"]["a3"]) == USERS
    assert server.memory("VmRSS") < before + 64 * MIB


async def _is_logged(server: Server, event: str) -> bool:
    return bool(server.lines(event))


async def test_large_responses_do_not_fill_memory_or_delay_reads(
    server: Server,
) -> None:
    await small_reads(server, 0.5)
    before = server.memory()
    query, variables = large_query(14)
    reading = asyncio.create_task(small_reads(server, 4))
    clients = [await server.connect(query, **variables) for _ in range(20)]
    times = await reading
    grown = (server.memory() - before) // MIB
    report(times, grown)
    assert grown < 16 * (MAX_UNREAD_RESPONSES + 4)
    assert times[-1] < LONGEST_READ_SECONDS
    for client in clients:
        client.close()


async def test_known_attack_with_large_responses_fails(server: Server) -> None:
    await small_reads(server, 0.5)
    before = server.memory()
    roots = " ".join(f"a{n}: usersById(ids: $ids) {{ ...f }}" for n in range(4))
    query = f"query($ids: [ID!]!) {{ {roots} }} fragment f on User {{ {'a' * 200_000}: id }}"
    reading = asyncio.create_task(small_reads(server, 4))
    client = await server.connect(query, ids=[str(n) for n in range(1, USERS + 1)])
    times = await reading
    grown = (server.memory() - before) // MIB
    report(times, grown)
    assert grown < 32
    assert times[-1] < LONGEST_READ_SECONDS
    client.close()
