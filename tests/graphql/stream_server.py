"""A server with a small schema that has a subscription, for tests of the transports of streams."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NewType

import strawberry
import uvicorn
from starlette.types import Receive, Scope, Send
from strawberry.schema.config import StrawberryConfig

from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.adapters.http import RequestIds
from segmentql.adapters.http_connections import ConnectionTable
from segmentql.adapters.http_protocol import limited_protocol
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.adapters.websocket_protocol import limited_websocket_protocol
from segmentql.errors import Unavailable
from segmentql.graphql.context import Info
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.http.request_limits import RequestLimits
from segmentql.graphql.http.sse import EventStreams
from segmentql.graphql.http.stream_dependencies import StreamDependencies
from segmentql.graphql.http.stream_registry import StreamRegistry
from segmentql.graphql.http.view import GraphQLView
from segmentql.graphql.http.websocket import GraphQLWebSockets
from segmentql.graphql.types.errors import bad_request
from segmentql.graphql.types.permissions import NeedsEditor
from segmentql.logs import RequestLog
from segmentql.principal import Principal
from segmentql.settings import Settings
from tests.graphql.executor_helpers import LIMITS

FAULT_AT = 13
"""The number of the event at which the source of `ticks` fails."""


@dataclass
class TickRecord:
    number: int
    text: str

    @property
    def cursor(self) -> str:
        return str(self.number)


Anything = NewType("Anything", object)
"""A scalar whose values are not checked."""


@strawberry.type
class Tick:
    number: int
    cursor: str
    text: str

    @strawberry.field
    @staticmethod
    async def unserializable(parent: strawberry.Parent[TickRecord]) -> Anything:
        return Anything(object() if parent.number == 2 else parent.number)

    @strawberry.field
    @staticmethod
    async def failing(parent: strawberry.Parent[TickRecord]) -> int:
        if parent.number == 2:
            raise ValueError("a secret")
        return parent.number


@strawberry.type
class Query:
    @strawberry.field
    @staticmethod
    async def one() -> int:
        return 1


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, info: Info) -> int:
        return 1

    @strawberry.mutation
    async def unserializable_change(self, info: Info) -> Anything:
        return Anything(object())

    @strawberry.mutation
    async def slow_change(self, info: Info) -> int:
        """Wait until the test lets the mutation finish."""
        STATS.mutations += 1
        await STATS.may_finish.wait()
        return 2


@dataclass
class SourceStats:
    """What the sources of a server have done."""

    opened: int = 0
    closed: int = 0
    produced: int = 0
    mutations: int = 0
    may_finish: asyncio.Event = field(default_factory=asyncio.Event)


STATS = SourceStats()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(
        self,
        info: Info,
        *,
        count: int = 3,
        after: str | None = None,
        size: int = 0,
        is_open: bool = False,
    ) -> AsyncGenerator[Tick, None]:
        """Yield `count` events after the number `after`, and then wait if `is_open` is set."""
        if after is not None and not after.isdecimal():
            raise bad_request("after", "is not a cursor", "a number")
        first = int(after or 0) + 1
        STATS.opened += 1
        try:
            for number in range(first, first + count):
                if number == FAULT_AT:
                    raise Unavailable("the database is down")
                STATS.produced += 1
                yield TickRecord(number, "x" * size)  # type: ignore[misc]
            if is_open:
                await asyncio.Event().wait()
        finally:
            STATS.closed += 1

    @strawberry.subscription(permission_classes=[NeedsEditor])  # type: ignore[untyped-decorator]
    async def secrets(self, info: Info) -> AsyncGenerator[Tick, None]:
        yield TickRecord(1, "")  # type: ignore[misc]


SCHEMA = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(
        scalar_map={Anything: strawberry.scalar(name="Anything", serialize=lambda value: value)}
    ),
)


class Lines:
    """A log of requests in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, "level": "info", **fields})

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, "level": "warning", **fields})


@dataclass
class StreamServer:
    """A running server."""

    port: int
    stopping: asyncio.Event
    registry: StreamRegistry
    server: uvicorn.Server
    lines: list[dict[str, Any]]
    stats: SourceStats = field(default_factory=lambda: STATS)

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"


@asynccontextmanager
async def serving_streams(
    database: Database,
    settings: Settings,
    *,
    authenticate: Callable[[bytes | None], Awaitable[Principal]] | None = None,
    max_streams: int = 100,
    max_streams_per_key: int = 50,
    send_seconds: float = 30,
    init_seconds: float = 10,
    heartbeat_seconds: float = 15,
    rate_per_second: int = 0,
    max_connections: int = 200,
    **changes: Any,
) -> AsyncIterator[StreamServer]:
    """Serve the small schema with limits that a test can reach."""
    STATS.opened = STATS.closed = STATS.produced = STATS.mutations = 0
    STATS.may_finish = asyncio.Event()
    lines = Lines()
    log = RequestLog(lines, every_request=True)
    stopping = asyncio.Event()
    limits = RequestLimits(
        **{
            "body_bytes": 100_000,
            "requests_in_flight": 100,
            "request_seconds": 30,
            "response_bytes": 16_777_216,
            "send_seconds": send_seconds,
            **changes,
        }
    )
    executor = GraphQLExecutor(SCHEMA, LIMITS, log=log)
    rate_limiter = RateLimiter(settings.redis_url, per_second=rate_per_second)
    view = GraphQLView(
        executor,
        database,
        Storage(settings),
        stopping,
        authenticate=authenticate,
        rate_limiter=rate_limiter,
        request_limits=limits,
        page=None,
        checks_host=True,
        compresses=True,
        log=log,
    )
    registry = StreamRegistry(
        ConcurrencyLimit(max_streams, max_streams_per_key),
        stopping=stopping,
        authenticate=authenticate,
    )
    dependencies = StreamDependencies(
        executor=executor,
        authenticate=view.services.authenticator.authenticate,
        check_host=view.services.authenticator.check_host,
        new_context=view.services.contexts.new_context,
        rate_limiter=rate_limiter,
        registry=registry,
        limits=limits,
        allowed_origins=("https://app.example.com",),
        log=log,
    )
    view.event_streams = EventStreams(dependencies, heartbeat_seconds=heartbeat_seconds)
    sockets = GraphQLWebSockets(dependencies, init_seconds=init_seconds)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (sockets if scope["type"] == "websocket" else view)(scope, receive, send)

    table = ConnectionTable(limit=max_connections, keep_alive_seconds=75)
    config = uvicorn.Config(
        RequestIds(app),
        http=limited_protocol(table),
        ws=limited_websocket_protocol(table),
        ws_max_size=limits.body_bytes,
        ws_per_message_deflate=False,
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield StreamServer(port, stopping, registry, server, lines.lines)
    finally:
        stopping.set()
        server.should_exit = True
        await running
        executor.close()
        rate_limiter.close()
