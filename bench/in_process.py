"""The price of knowing who asks: the same reads with a key and without, in one process.

`python -m bench.in_process` takes a `Turns` as JSON on its standard input and writes `Figures` as
JSON. Two whole applications, one that requires keys and one that does not, are called as uvicorn
calls them, in turns of a few milliseconds each: what differs by a few microseconds a request is
lost in what two processes differ by from one second to the next. HTTP's own cost, which is the same
for both, is left out, so that the ratio is above what a client meets.
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
from bench.queries import ASKS
from segmentql.app import create_app
from segmentql.settings import Settings, load_settings

AT_A_TIME: Final = 16
EACH: Final = 4
"""So many requests, one after the other, of each of those at a time, are a turn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turns:
    """What to measure."""

    sizes: Sizes
    token: str
    pairs: int
    """How many turns of each; they alternate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """Medians over the pairs."""

    with_key_us: float
    """The process' CPU time a request."""
    without_key_us: float
    ratio: float
    """Of one pair's figures."""


async def run_turns(turns: Turns, environment: dict[str, str]) -> Figures:
    """Measure in a process of its own.

    Raises:
        RuntimeError: it ended with an error.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.in_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,  # a line for each request
        env=environment,
    )
    try:
        out, err = await process.communicate(json.dumps(dataclasses.asdict(turns)).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"the turns failed: {err[-2000:].decode(errors='replace')}")
    return Figures(**json.loads(out))


class Client:
    """Asks an application for users' segments."""

    def __init__(self, app: ASGIApp, sizes: Sizes, token: str | None) -> None:
        self._app = app
        self._ask = ASKS["OneUser"](sizes, random.Random(0))
        self._headers = [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json")]
        if token:
            self._headers.append((b"authorization", f"Bearer {token}".encode()))

    async def turn(self) -> float:
        """The CPU time a request, in microseconds."""
        used = time.process_time()
        await asyncio.gather(*(self._some() for _ in range(AT_A_TIME)))
        return 1e6 * (time.process_time() - used) / (AT_A_TIME * EACH)

    async def _some(self) -> None:
        for _ in range(EACH):
            await self._one()

    async def _one(self) -> None:
        body, about = self._ask.body()
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
        problem = self._ask.problem(about, json.loads(sent[1]["body"]))
        if problem:
            raise RuntimeError(problem)


async def measured(turns: Turns, settings: Settings) -> Figures:
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for auth, token in (("required", turns.token), ("off", None)):
            app = create_app(settings.model_copy(update={"auth": auth}))
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients.append(Client(app, turns.sizes, token))
        for client in clients:  # statements are prepared, the key is met
            await client.turn()
        pairs = [await _pair(clients, number) for number in range(turns.pairs)]
    return Figures(
        with_key_us=statistics.median(key for key, _ in pairs),
        without_key_us=statistics.median(none for _, none in pairs),
        ratio=statistics.median(key / none for key, none in pairs),
    )


async def _pair(clients: Sequence[Client], number: int) -> tuple[float, float]:
    keyed, open_to_all = clients
    if number % 2:
        none = await open_to_all.turn()
        return await keyed.turn(), none
    return await keyed.turn(), await open_to_all.turn()


def main() -> None:
    given = json.loads(sys.stdin.read())
    turns = Turns(sizes=Sizes(**given.pop("sizes")), **given)
    work = measured(turns, load_settings())
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        figures = asyncio.run(work)
    else:
        figures = uvloop.run(work)
    sys.stdout.write(json.dumps(dataclasses.asdict(figures)))


if __name__ == "__main__":
    main()
