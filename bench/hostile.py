"""Hostile clients, which send requests that are cheap to send and expensive to process.

`python -m bench.hostile PORT SECONDS USERS` runs ten clients. Each sends sequential requests of one
kind. The output is the number of responses by status, as JSON.
"""

import asyncio
import collections
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

CLIENTS: Final = 10
TIMEOUT_SECONDS: Final = 60

Bodies = Iterator[bytes]


def _body(query: str) -> bytes:
    return json.dumps({"query": query}).encode()


def deep_nesting(_users: int) -> Bodies:
    """Yield queries that are nested to the limits of a parser."""
    for number in itertools.count():
        yield _body("{ a " * (300 + number % 7) + "}" * (300 + number % 7))


def many_aliases(_users: int) -> Bodies:
    """Yield queries with many aliases of an expensive field."""
    for number in itertools.count():
        parts = (f'a{number}x{n}: segment(slug: "S") {{ memberCount }}' for n in range(400))
        yield _body(f"{{ {' '.join(parts)} }}")


def repeated_fields(_users: int) -> Bodies:
    """Yield queries whose repeated fields a validator would compare pair by pair."""
    for number in itertools.count():
        yield _body(f"{{ user(id: {number + 1}) {{ {'segments { slug } ' * 800} }} }}")


def many_tokens(_users: int) -> Bodies:
    """Yield documents of a million tokens."""
    body = _body("{" * 1_000_000)
    while True:
        yield body


def distinct_large_documents(_users: int) -> Bodies:
    """Yield valid documents of the maximum size, each of them different."""
    for number in itertools.count():
        ids = ",".join(str(number * 10 + n) for n in range(1, 900))
        yield _body(f"{{ usersById(ids: [{ids}]) {{ id }} }}")


def expensive_query(users: int) -> Bodies:
    """Yield the most expensive query for the database and the executor that is allowed."""
    ids = list(range(1, min(users, 1000) + 1))
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id segments { slug } memberships"
    query += " { joinedAt segment { slug } } } }"
    body = json.dumps({"query": query, "variables": {"ids": ids}}).encode()
    while True:
        yield body


def large_variables(_users: int) -> Bodies:
    """Yield a request with a megabyte of variables."""
    body = json.dumps({"query": "{ __typename }", "variables": {"a": [[1]] * 150_000}}).encode()
    while True:
        yield body


ATTACKS: Final[tuple[Callable[[int], Bodies], ...]] = (
    deep_nesting,
    many_aliases,
    repeated_fields,
    many_tokens,
    distinct_large_documents,
    expensive_query,
    large_variables,
)
"""The attacks of one client each. The remaining clients send their bodies slowly."""


async def run_client(
    port: int, bodies: Bodies, deadline: float, counts: "collections.Counter[str]"
) -> None:
    while time.monotonic() < deadline:
        counts[await _send(port, next(bodies))] += 1


async def run_slow_client(port: int, deadline: float, counts: "collections.Counter[str]") -> None:
    """Send a body of 1000 bytes with one byte every 50 ms."""
    while time.monotonic() < deadline:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_head(1000))
        try:
            for _ in range(1000):
                if time.monotonic() >= deadline or reader.at_eof():
                    break
                writer.write(b"{")
                await writer.drain()
                await asyncio.sleep(0.05)
            counts["slow"] += 1
        except OSError:
            counts["closed"] += 1
        finally:
            writer.close()


async def _send(port: int, body: bytes) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(_head(len(body)) + body)
                status = (await reader.readline()).split()[1:2]
                await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    return status[0].decode() if status else "closed"


def _head(length: int) -> bytes:
    return (
        "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


async def run(port: int, seconds: float, users: int) -> None:
    counts: collections.Counter[str] = collections.Counter()
    deadline = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for attack in ATTACKS:
            tasks.create_task(run_client(port, attack(users), deadline, counts))
        for _ in range(CLIENTS - len(ATTACKS)):
            tasks.create_task(run_slow_client(port, deadline, counts))
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
