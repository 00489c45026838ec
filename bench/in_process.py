"""Compares the CPU time of a read with and without an API key, in one process.

`python -m bench.in_process` reads a `Comparison` as JSON from its standard input and writes
`CpuTimes` as JSON. It calls two applications, of which one requires keys, like uvicorn does. The
batches alternate every few milliseconds, because the difference of a few microseconds per request
is smaller than the noise between two processes. The cost of HTTP, which is the same for both, is
not included, so the ratio is higher than for a client.
"""

import asyncio
import dataclasses
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from starlette.types import ASGIApp, Message

from bench.data import Sizes
from bench.request_types import REQUEST_TYPES
from segmentql.app import create_app
from segmentql.settings import Settings, load_settings

CONCURRENCY: Final = 16
REQUESTS_PER_TASK: Final = 4
"""A batch is `CONCURRENCY` concurrent tasks that each send this number of sequential requests."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The parameters of a comparison."""

    sizes: Sizes
    token: str
    """The API key of the application that requires one."""
    pairs: int
    """The number of batches for each application."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuTimes:
    """The medians over all pairs of batches."""

    with_key_us: float
    """The CPU time per request in microseconds."""
    without_key_us: float
    ratio: float
    """The median of the ratios of the pairs."""


async def run_comparison(comparison: Comparison, environment: dict[str, str]) -> CpuTimes:
    """Run a comparison in a separate process.

    Raises:
        RuntimeError: The process failed.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.in_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,  # one line per request
        env=environment,
    )
    try:
        out, err = await process.communicate(json.dumps(dataclasses.asdict(comparison)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the comparison failed: {err[-2000:].decode(errors='replace')}")
    return CpuTimes(**json.loads(out))


class Client:
    """A client that calls an application in the same process."""

    def __init__(self, app: ASGIApp, sizes: Sizes, token: str | None) -> None:
        self._app = app
        self._request = REQUEST_TYPES["OneUser"](sizes, random.Random(0))
        self._headers = [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json")]
        if token:
            self._headers.append((b"authorization", f"Bearer {token}".encode()))

    async def measure_batch(self) -> float:
        """Send a batch of requests, and return the CPU time per request in microseconds."""
        started = time.process_time()
        await asyncio.gather(*(self._send_requests() for _ in range(CONCURRENCY)))
        return 1e6 * (time.process_time() - started) / (CONCURRENCY * REQUESTS_PER_TASK)

    async def _send_requests(self) -> None:
        for _ in range(REQUESTS_PER_TASK):
            await self._send_request()

    async def _send_request(self) -> None:
        body, subject = self._request.next_body()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "query_string": b"",
            "headers": [*self._headers, (b"content-length", str(len(body)).encode())],
            "state": {},
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        error = self._request.find_error(subject, json.loads(sent[1]["body"]))
        if error:
            raise RuntimeError(error)


async def measure(comparison: Comparison, settings: Settings) -> CpuTimes:
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for auth, token in (("required", comparison.token), ("off", None)):
            app = create_app(settings.model_copy(update={"auth": auth}))
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients.append(Client(app, comparison.sizes, token))
        for client in clients:  # warm-up: statements are prepared, the key is cached
            await client.measure_batch()
        pairs = [await _measure_pair(clients, number) for number in range(comparison.pairs)]
    return CpuTimes(
        with_key_us=statistics.median(with_key for with_key, _ in pairs),
        without_key_us=statistics.median(without_key for _, without_key in pairs),
        ratio=statistics.median(with_key / without_key for with_key, without_key in pairs),
    )


async def _measure_pair(clients: Sequence[Client], number: int) -> tuple[float, float]:
    with_key, without_key = clients
    if number % 2:  # the order alternates
        without_key_us = await without_key.measure_batch()
        return await with_key.measure_batch(), without_key_us
    return await with_key.measure_batch(), await without_key.measure_batch()


def main() -> None:
    fields = json.loads(sys.stdin.read())
    comparison = Comparison(sizes=Sizes(**fields.pop("sizes")), **fields)
    coroutine = measure(comparison, load_settings())
    try:
        import uvloop  # noqa: PLC0415 - not available on every system
    except ImportError:
        cpu_times = asyncio.run(coroutine)
    else:
        cpu_times = uvloop.run(coroutine)
    sys.stdout.write(json.dumps(dataclasses.asdict(cpu_times)))


if __name__ == "__main__":
    main()
