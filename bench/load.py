"""The load client: a process of its own, so that it measures the server and not itself.

`python -m bench.load` takes a `Load` as JSON on its standard input and writes a `Result` as JSON.

Closed loop (no `rate`): each connection sends its next request when the last is answered. Open
loop: requests are due at fixed moments, whether or not the server keeps up, and a latency counts
from the moment at which a request was due.
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
from bench.queries import ASKS

LINGER_SECONDS: Final = 10
"""How long answers are waited for after the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """How to load a server on this machine; ends at `seconds` or `max_requests`, what is first."""

    port: int
    ask: str
    sizes: Sizes
    seconds: float
    warm_up_seconds: float = 0
    """Before `seconds`; these requests are checked but not measured."""
    connections: int = 16
    rate: float | None = None
    """Requests due in a second; None: as many as there can be."""
    max_requests: int = 1_000_000
    check_every: int = 50
    """One in so many answers is parsed and compared with what it should be."""
    seed: int = 0
    share: tuple[int, int] = (0, 1)
    """For loads that change: which part of the users, of how many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a load; latencies in milliseconds, of those measured."""

    requests: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    checked: int
    failed: int
    first_failure: str | None
    client_cpu: float
    """The client's own CPU time in its running time: near 1 it was the limit."""


async def run_load(load: Load) -> Result:
    """Run a load in a process of its own.

    Raises:
        RuntimeError: it ended with an error, or not at all.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    patience_seconds = load.warm_up_seconds + load.seconds + LINGER_SECONDS + 30
    try:
        async with asyncio.timeout(patience_seconds):
            out, err = await process.communicate(json.dumps(dataclasses.asdict(load)).encode())
    except TimeoutError as error:
        raise RuntimeError(f"the load client did not end in {patience_seconds:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the load client failed: {err.decode()}")
    return Result(**json.loads(out))


class Client:
    """Runs one load, in this event loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._ask = ASKS[load.ask](load.sizes, random.Random(load.seed), load.share)
        self._sent = 0
        self._under_way = 0
        self._answers = 0
        self._latencies: list[float] = []
        self._checked = 0
        self._failures: list[str] = []
        self._idle: deque[Connection] = deque()
        self._late: deque[float] = deque()
        self._everything_was_due = False
        self._done = asyncio.Event()
        self._measure_from = self._ends_at = 0.0
        self._last_answer = 0.0

    async def run(self) -> Result:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(self._connection, "127.0.0.1", self._load.port))[1]
            for _ in range(self._load.connections)
        ]
        cpu, began = time.process_time(), time.monotonic()
        self._measure_from = began + self._load.warm_up_seconds
        self._ends_at = self._measure_from + self._load.seconds
        if self._load.rate:
            self._idle.extend(connections)
            metronome = threading.Thread(
                target=self._beat, args=(loop, began, self._load.rate), daemon=True
            )
            metronome.start()
        else:
            for connection in connections:
                if not self._is_over():
                    self._send(connection, time.monotonic())
        try:
            async with asyncio.timeout(self._ends_at - began + LINGER_SECONDS):
                await self._done.wait()
        except TimeoutError:
            self._failures.append(f"{self._under_way} requests were not answered")
        ended = time.monotonic()
        for connection in connections:
            connection.close()
        return self._result(cpu=(time.process_time() - cpu) / (ended - began))

    def _connection(self) -> Connection:
        return Connection(self._ask.path, self._answered, self._lost)

    def _beat(self, loop: asyncio.AbstractEventLoop, began: float, rate: float) -> None:
        # A thread that sleeps: the event loop's timers are late by up to a millisecond.
        for number in range(1, self._load.max_requests + 1):
            due = began + number / rate
            if due >= self._ends_at:
                break
            time.sleep(max(0, due - time.monotonic()))
            loop.call_soon_threadsafe(self._due, due)
        loop.call_soon_threadsafe(self._all_due)

    def _all_due(self) -> None:
        self._everything_was_due = True
        self._end_if_done()

    def _due(self, at: float) -> None:
        if self._idle:
            self._send(self._idle.popleft(), at)
        else:
            self._late.append(at)

    def _send(self, connection: Connection, intended: float) -> None:
        body, connection.about = self._ask.body()
        connection.intended = intended
        self._sent += 1
        self._under_way += 1
        connection.send(body)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        now = self._last_answer = time.monotonic()
        self._under_way -= 1
        if connection.intended >= self._measure_from:
            self._latencies.append(now - connection.intended)
        self._check(connection.about, status, body)
        if self._load.rate:
            if self._late:
                self._send(connection, self._late.popleft())
            else:
                self._idle.append(connection)
        elif not self._is_over():
            self._send(connection, now)
        self._end_if_done()

    def _check(self, about: Any, status: int, body: bytes) -> None:
        self._answers += 1
        problem = None
        if status != 200 or self._ask.failed(body):  # noqa: PLR2004 - HTTP's OK
            problem = f"status {status}: {body[:500].decode(errors='replace')}"
        elif (self._answers - 1) % self._load.check_every == 0:
            self._checked += 1
            problem = self._ask.problem(about, json.loads(body))
        if problem:
            self._failures.append(problem)

    def _lost(self, connection: Connection) -> None:
        if not self._done.is_set():
            self._failures.append("the server closed a connection")
            self._done.set()

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_at or self._sent >= self._load.max_requests

    def _end_if_done(self) -> None:
        sent = self._everything_was_due if self._load.rate else self._is_over()
        if sent and not self._under_way and not self._late:
            self._done.set()

    def _result(self, cpu: float) -> Result:
        milliseconds = sorted(1000 * seconds for seconds in self._latencies) or [0.0]
        seconds = max(self._last_answer - self._measure_from, 1e-6)

        def quantile(share: float) -> float:
            return milliseconds[min(int(share * len(milliseconds)), len(milliseconds) - 1)]

        return Result(
            requests=len(self._latencies),
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
    given = json.loads(sys.stdin.read())
    sizes, share = Sizes(**given.pop("sizes")), tuple(given.pop("share"))
    client = Client(Load(sizes=sizes, share=share, **given))
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        result = asyncio.run(client.run())
    else:
        result = uvloop.run(client.run())
    sys.stdout.write(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
