"""Subscribers of the change feed over SSE, and the delay from a commit to each of them."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.comparison import WrongResponse

SUBSCRIPTION: Final = """
subscription($slug: String!) {
  changes(filter: {slugs: [$slug]}) {
    cursor
    events { cursor at ... on MembershipEvent { entry { operation userId cause } } }
  }
}
"""
MEASURED_SUBSCRIBERS: Final = 10
"""The number of subscribers whose delays are measured. The others only read, so that the client
does not need the CPU time that it measures."""

_USER_ID: Final = re.compile(rb'"userId":"(\d+)"')
_DRAIN_BYTES: Final = 65_536


@dataclass
class Subscribers:
    """The connected subscribers of one segment."""

    committed_at: dict[int, float] = field(default_factory=dict)
    """The monotonic time after the commit, by the user who joined."""

    delays: list[float] = field(default_factory=list)
    """The seconds from a commit until a measured subscriber had the change."""

    count: int = 0
    connected: int = 0

    @property
    def are_connected(self) -> bool:
        return self.connected == self.count

    async def follow(self, port: int, slug: str, *, is_measured: bool) -> None:
        """Read the stream of one subscriber until the task is cancelled.

        Raises:
            WrongResponse: The stream did not begin, or it ended.
        """
        body = json.dumps({"query": SUBSCRIPTION, "variables": {"slug": slug}}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise WrongResponse(f"a subscription was rejected: {head[:200]!r}")
            await reader.readuntil(b'"cursor"')  # the first message, which is empty
            self.connected += 1
            while chunk := await (reader.readline() if is_measured else reader.read(_DRAIN_BYTES)):
                if is_measured:
                    self._note(chunk)
            raise WrongResponse("a stream ended")
        finally:
            writer.close()

    def _note(self, line: bytes) -> None:
        now = time.monotonic()
        for user_id in _USER_ID.findall(line):
            self.delays.append(now - self.committed_at.get(int(user_id), now))

    def percentiles_ms(self) -> Mapping[str, float]:
        """Return the median and the 99th percentile of the delays."""
        delays = sorted(self.delays)
        if not delays:
            raise WrongResponse("no subscriber received a change")
        return {
            "p50_ms": 1000 * delays[len(delays) // 2],
            "p99_ms": 1000 * delays[int(len(delays) * 0.99)],
        }


@asynccontextmanager
async def subscribed(port: int, slug: str, count: int) -> AsyncIterator[Subscribers]:
    """Connect subscribers, and disconnect them at the exit.

    Args:
        port: The port of the API.
        slug: The segment that they follow.
        count: The number of subscribers.

    Raises:
        WrongResponse: A stream did not begin, or ended early.
    """
    subscribers = Subscribers(count=count)
    async with asyncio.TaskGroup() as tasks:
        streams = [
            tasks.create_task(
                subscribers.follow(port, slug, is_measured=number < MEASURED_SUBSCRIBERS)
            )
            for number in range(count)
        ]
        while not subscribers.are_connected:
            await asyncio.sleep(0.01)
        yield subscribers
        for stream in streams:
            stream.cancel()
