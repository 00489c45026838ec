"""Hostile callers: a process of its own that sends what costs a server much and a sender little.

`python -m bench.hostile PORT SECONDS USERS` runs ten callers, each with one way of its own, one
request after the other, and prints how many answers of which status there were.
"""

import asyncio
import collections
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

CALLERS: Final = 10
PATIENCE_SECONDS: Final = 60

Bodies = Iterator[bytes]


def _body(query: str) -> bytes:
    return json.dumps({"query": query}).encode()


def deep(_users: int) -> Bodies:
    """Nested as far as a parser goes."""
    for number in itertools.count():
        yield _body("{ a " * (300 + number % 7) + "}" * (300 + number % 7))


def wide(_users: int) -> Bodies:
    """Many aliases of what costs something."""
    for number in itertools.count():
        parts = (f'a{number}x{n}: segment(slug: "S") {{ memberCount }}' for n in range(400))
        yield _body(f"{{ {' '.join(parts)} }}")


def repeated(_users: int) -> Bodies:
    """What must be compared pair by pair."""
    for number in itertools.count():
        yield _body(f"{{ user(id: {number + 1}) {{ {'segments { slug } ' * 800} }} }}")


def huge(_users: int) -> Bodies:
    """A megabyte of tokens."""
    body = _body("{" * 1_000_000)
    while True:
        yield body


def large_and_valid(_users: int) -> Bodies:
    """Each as large as is allowed, and never the same twice."""
    for number in itertools.count():
        ids = ",".join(str(number * 10 + n) for n in range(1, 900))
        yield _body(f"{{ usersById(ids: [{ids}]) {{ id }} }}")


def costly(users: int) -> Bodies:
    """The most that one may ask of the database and of the executor."""
    ids = list(range(1, min(users, 1000) + 1))
    query = "query($ids: [ID!]!) { usersById(ids: $ids) { id segments { slug } memberships"
    query += " { joinedAt segment { slug } } } }"
    body = json.dumps({"query": query, "variables": {"ids": ids}}).encode()
    while True:
        yield body


def many_values(_users: int) -> Bodies:
    """A megabyte of variables."""
    body = json.dumps({"query": "{ __typename }", "variables": {"a": [[1]] * 150_000}}).encode()
    while True:
        yield body


WAYS: Final[tuple[Callable[[int], Bodies], ...]] = (
    deep,
    wide,
    repeated,
    huge,
    large_and_valid,
    costly,
    many_values,
)
"""Those callers who are left over send their bodies slowly."""


async def call(port: int, bodies: Bodies, until: float, seen: "collections.Counter[str]") -> None:
    while time.monotonic() < until:
        seen[await _ask(port, next(bodies))] += 1


async def call_slowly(port: int, until: float, seen: "collections.Counter[str]") -> None:
    """A byte every now and then, on a connection that is kept."""
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_head(1000))
        try:
            for _ in range(1000):
                if time.monotonic() >= until or reader.at_eof():
                    break
                writer.write(b"{")
                await writer.drain()
                await asyncio.sleep(0.05)
            seen["slow"] += 1
        except OSError:
            seen["closed"] += 1
        finally:
            writer.close()


async def _ask(port: int, body: bytes) -> str:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
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
    seen: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for way in WAYS:
            tasks.create_task(call(port, way(users), until, seen))
        for _ in range(CALLERS - len(WAYS)):
            tasks.create_task(call_slowly(port, until, seen))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
