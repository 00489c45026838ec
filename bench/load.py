"""The load client, which runs in a separate process.

`python -m bench.load` reads a `Load` as JSON from its standard input and writes a `LoadResult` as
JSON.

Closed loop (without `rate`): each connection sends its next request after the last response. Open
loop: requests are due at fixed times, even if the server does not keep up, and the latency of a
request counts from the time at which it was due.
"""

import asyncio
import dataclasses
import json
import random
import sys
import threading
import time
from collections import deque
from typing import Any, Final

from bench.data import Sizes
from bench.http import Connection
from bench.request_types import REQUEST_TYPES

DRAIN_TIMEOUT_SECONDS: Final = 10
"""The time to wait for responses after the last request."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """A load on a server of this machine. It ends after `seconds` or `max_requests`, if earlier."""

    port: int
    request: str
    """The name of the kind of request, a key of `REQUEST_TYPES`."""
    sizes: Sizes
    seconds: float
    warm_up_seconds: float = 0
    """The warm-up before `seconds`. Its requests are checked but not measured."""
    connections: int = 16
    rate: float | None = None
    """The number of requests per second. None: as many as possible."""
    max_requests: int = 1_000_000
    check_every: int = 50
    """The number of responses of which one is parsed and compared with the expected data."""
    seed: int = 0
    shard: tuple[int, int] = (0, 1)
    """The index and the number of disjoint shards of all users, for loads that write."""
    token: str = ""
    """The API key of all requests. Empty: the requests have none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadResult:
    """The result of a load: the latencies of the measured requests and the number of failures."""

    requests: int
    responses: int
    """The number of all responses, including those of the warm-up."""
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    checked: int
    failed: int
    first_failure: str | None
    client_cpu: float
    """The client's CPU time as a fraction of its running time. Near 1, the client is the limit."""


async def run_load(load: Load) -> LoadResult:
    """Run a load in a separate process.

    Raises:
        RuntimeError: The process failed, or did not exit in time.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    timeout_seconds = load.warm_up_seconds + load.seconds + DRAIN_TIMEOUT_SECONDS + 30
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate(json.dumps(dataclasses.asdict(load)).encode())
    except TimeoutError as error:
        raise RuntimeError(f"the load client did not exit within {timeout_seconds:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the load client failed: {err.decode()}")
    return LoadResult(**json.loads(out))


class Client:
    """A load client that runs one load in the current event loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._request = REQUEST_TYPES[load.request](
            load.sizes, random.Random(load.seed), load.shard
        )
        self._sent = 0
        self._in_flight = 0
        self._response_count = 0
        self._latencies: list[float] = []
        self._checked = 0
        self._failures: list[str] = []
        self._idle: deque[Connection] = deque()
        self._backlog: deque[float] = deque()
        self._all_scheduled = False
        self._is_done = asyncio.Event()
        self._measure_from = self._ends_at = 0.0
        self._last_response_at = 0.0

    async def run(self) -> LoadResult:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(self._make_connection, "127.0.0.1", self._load.port))[1]
            for _ in range(self._load.connections)
        ]
        cpu, started = time.process_time(), time.monotonic()
        self._measure_from = started + self._load.warm_up_seconds
        self._ends_at = self._measure_from + self._load.seconds
        if self._load.rate:
            self._idle.extend(connections)
            scheduler = threading.Thread(
                target=self._run_schedule, args=(loop, started, self._load.rate), daemon=True
            )
            scheduler.start()
        else:
            for connection in connections:
                if not self._is_over():
                    self._send(connection, time.monotonic())
        try:
            async with asyncio.timeout(self._ends_at - started + DRAIN_TIMEOUT_SECONDS):
                await self._is_done.wait()
        except TimeoutError:
            self._failures.append(f"{self._in_flight} requests got no response")
        ended = time.monotonic()
        for connection in connections:
            connection.close()
        return self._result(cpu=(time.process_time() - cpu) / (ended - started))

    def _make_connection(self) -> Connection:
        return Connection(
            self._request.path, self._on_response, self._on_lost, token=self._load.token
        )

    def _run_schedule(self, loop: asyncio.AbstractEventLoop, started: float, rate: float) -> None:
        # In a thread, because timers of the event loop are up to a millisecond late.
        for number in range(1, self._load.max_requests + 1):
            due = started + number / rate
            if due >= self._ends_at:
                break
            time.sleep(max(0, due - time.monotonic()))
            loop.call_soon_threadsafe(self._on_due, due)
        loop.call_soon_threadsafe(self._on_all_due)

    def _on_all_due(self) -> None:
        self._all_scheduled = True
        self._end_if_done()

    def _on_due(self, at: float) -> None:
        if self._idle:
            self._send(self._idle.popleft(), at)
        else:
            self._backlog.append(at)

    def _send(self, connection: Connection, scheduled_at: float) -> None:
        body, connection.subject = self._request.next_body()
        connection.scheduled_at = scheduled_at
        self._sent += 1
        self._in_flight += 1
        connection.send(body)

    def _on_response(self, connection: Connection, status: int, body: bytes) -> None:
        now = self._last_response_at = time.monotonic()
        self._in_flight -= 1
        if connection.scheduled_at >= self._measure_from:
            self._latencies.append(now - connection.scheduled_at)
        self._check(connection.subject, status, body)
        if self._load.rate:
            if self._backlog:
                self._send(connection, self._backlog.popleft())
            else:
                self._idle.append(connection)
        elif not self._is_over():
            self._send(connection, now)
        self._end_if_done()

    def _check(self, subject: Any, status: int, body: bytes) -> None:
        self._response_count += 1
        failure = None
        if status != 200 or self._request.has_errors(body):  # noqa: PLR2004 - HTTP OK
            failure = f"status {status}: {body[:500].decode(errors='replace')}"
        elif (self._response_count - 1) % self._load.check_every == 0:
            self._checked += 1
            failure = self._request.find_error(subject, json.loads(body))
        if failure:
            self._failures.append(failure)

    def _on_lost(self, connection: Connection) -> None:
        if not self._is_done.is_set():
            self._failures.append("the server closed a connection")
            self._is_done.set()

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_at or self._sent >= self._load.max_requests

    def _end_if_done(self) -> None:
        is_all_sent = self._all_scheduled if self._load.rate else self._is_over()
        if is_all_sent and not self._in_flight and not self._backlog:
            self._is_done.set()

    def _result(self, cpu: float) -> LoadResult:
        milliseconds = sorted(1000 * seconds for seconds in self._latencies) or [0.0]
        seconds = max(self._last_response_at - self._measure_from, 1e-6)

        def quantile(fraction: float) -> float:
            return milliseconds[min(int(fraction * len(milliseconds)), len(milliseconds) - 1)]

        return LoadResult(
            requests=len(self._latencies),
            responses=self._response_count,
            per_second=len(self._latencies) / seconds,
            p50_ms=quantile(0.5),
            p90_ms=quantile(0.9),
            p99_ms=quantile(0.99),
            max_ms=milliseconds[-1],
            checked=self._checked,
            failed=len(self._failures),
            first_failure=self._failures[0] if self._failures else None,
            client_cpu=cpu,
        )


def main() -> None:
    fields = json.loads(sys.stdin.read())
    sizes, shard = Sizes(**fields.pop("sizes")), tuple(fields.pop("shard"))
    client = Client(Load(sizes=sizes, shard=shard, **fields))
    try:
        import uvloop  # noqa: PLC0415 - not available on every system
    except ImportError:
        result = asyncio.run(client.run())
    else:
        result = uvloop.run(client.run())
    sys.stdout.write(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
