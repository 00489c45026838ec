"""Counts of closed connections, the wait for a close, and an application that waits."""

import asyncio

from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from tests.adapters.http_server import Client, echo


def closed(reason: str) -> float:
    """Return the number of connections closed for a reason so far."""
    name = "segmentql_connections_closed_total"
    return REGISTRY.get_sample_value(name, {"reason": reason}) or 0


async def read_until_closed(client: Client, *, seconds: float = 3) -> bytes:
    """Wait until the server closes the connection, and return what it sent before."""
    async with asyncio.timeout(seconds):
        return await client.rest()


class Gate:
    """An application that responds after its gate opens."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.waiting += 1
        await self.open.wait()
        await echo(scope, receive, send)
