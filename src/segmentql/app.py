"""The web application: `create_app(settings)`. Importing this module has no effect."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from segmentql import logs, metrics_collector
from segmentql.adapters.database import Database
from segmentql.adapters.http import (
    SAFE_HEADERS,
    LogRejections,
    RequestIds,
    SingleHeaders,
    WithHeaders,
)
from segmentql.adapters.jobs import JobPublisher
from segmentql.adapters.metrics_endpoint import access_error, metrics_response
from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.graphql.cost.document_limits import DocumentLimits
from segmentql.graphql.execution.document_cache import SchemaExposure
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.http.graphiql_page import PAGE_HEADERS
from segmentql.graphql.http.view import GraphQLView, RequestLimits
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.keys.cache import ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.schema import make_schema
from segmentql.settings import Settings

PING_SECONDS: Final = 0.3
"""How long `/readyz` waits for Redis and the store: a probe has little patience, and they do not
decide it."""

KEY_CONNECTIONS: Final = 2
"""The key ring's own, so that nobody who fills the pool keeps it from looking: one looks, one asks
or notes."""

KEY_STATEMENT_SECONDS: Final = 3

EXPLORER: Final = Path(__file__).parent / "static" / "explorer"


def create_app(settings: Settings) -> Starlette:
    """Make the application; it connects when it starts and lets go when it stops."""
    schema_exposure = SchemaExposure(
        introspection=settings.introspection == "on", suggestions=settings.suggestions == "on"
    )
    request_log = logs.request_log(settings)
    executor = GraphQLExecutor(make_schema(), _limits(settings), schema_exposure, log=request_log)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        publisher = JobPublisher(settings.redis_url)
        database = Database(settings, name="segmentql api", publish=publisher.publish)
        queue_stats = QueueStats(settings.redis_url, seconds=PING_SECONDS)
        storage = Storage(settings)
        rate_limiter = RateLimiter(settings.redis_url, per_second=settings.rate_per_second)
        app.state.database = database
        app.state.queue_stats = queue_stats
        app.state.storage = storage
        app.state.settings = settings
        # Beside the first requests: it takes half a second that the first link would wait for.
        opening = asyncio.create_task(storage.open())
        try:
            async with _api_key_cache(settings) as keys:
                view = GraphQLView(
                    executor,
                    database,
                    storage,
                    app.state.stopping,
                    authenticate=keys.authenticate if keys else None,
                    rate_limiter=rate_limiter,
                    request_limits=RequestLimits(
                        body_bytes=settings.max_body_bytes,
                        requests_in_flight=settings.max_requests_in_flight,
                        request_seconds=settings.request_timeout_seconds,
                        response_bytes=settings.max_response_bytes,
                        send_seconds=settings.send_timeout_seconds,
                    ),
                    page=EXPLORER / "index.html" if settings.graphiql == "on" else None,
                    log=request_log,
                )
                app.state.view = (
                    _across_origins(view, settings, request_log) if settings.cors_origins else view
                )
                yield
        finally:
            executor.close()
            await asyncio.wait([opening])
            rate_limiter.close()
            queue_stats.close()
            await storage.close()
            await database.dispose()
            publisher.close()

    endpoints = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    routes: list[BaseRoute] = [
        Route("/", _redirect("/graphql")),
        *(Route(path + end, endpoints[path]) for path in endpoints for end in ("", "/")),
    ]
    if settings.graphiql == "on":
        files = _BuiltFiles(directory=EXPLORER, check_dir=False)
        routes += [
            Route("/explorer", _redirect("/explorer/")),
            Mount("/explorer", WithHeaders(files, PAGE_HEADERS)),
        ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(WithHeaders, SAFE_HEADERS),
            Middleware(RequestIds),
            Middleware(SingleHeaders, request_log),
            Middleware(GraphQLFirst),
            Middleware(LogRejections, request_log),
        ],
        exception_handlers={Exception: fault},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # its redirects name the host that the client named
    app.state.stopping = asyncio.Event()
    return app


def _redirect(path: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that redirects to a path of the host that the client knows."""

    async def redirect(request: Request) -> Response:
        return RedirectResponse(path)

    return redirect


def _across_origins(view: ASGIApp, settings: Settings, log: logs.RequestLog) -> ASGIApp:
    """The view, for pages of the listed origins as well: with keys, never with cookies."""
    return _LoggedCors(
        view,
        log=log,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("authorization", "segmentql-read", "x-request-id"),
        expose_headers=("retry-after", "x-request-id"),
    )


def _limits(settings: Settings) -> DocumentLimits:
    return DocumentLimits(
        tokens=settings.max_tokens,
        depth=settings.max_depth,
        aliases=settings.max_aliases,
        directives=settings.max_directives,
        root_fields=settings.max_root_fields,
        list_items=settings.max_list_items,
        cost=settings.max_cost,
        response_bytes=settings.max_response_bytes,
    )


@asynccontextmanager
async def _api_key_cache(settings: Settings) -> AsyncIterator[ApiKeyCache | None]:
    """What the process knows of keys, on connections of its own; None where none is needed."""
    if settings.auth == "off":
        yield None
        return
    limits = {
        "database_read_url": None,
        "database_pool_size": KEY_CONNECTIONS,
        "statement_timeout_seconds": KEY_STATEMENT_SECONDS,
    }
    database = Database(
        settings.model_copy(update=limits), name="segmentql keys", publish=lambda messages: None
    )
    cache = ApiKeyCache(database, LoaderRegistry(database, primary=True).get(KeyByPublicId).load)
    try:
        async with cache.running():
            yield cache
    finally:
        await database.dispose()


class _LoggedCors(CORSMiddleware):
    """Logs each preflight request that it rejects; the view never sees those."""

    def __init__(self, app: ASGIApp, *, log: logs.RequestLog, **options: Any) -> None:
        super().__init__(app, **options)
        self._log = log

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code != 200:  # noqa: PLR2004 - OK
            reason = bytes(response.body).decode()  # such as "Disallowed CORS origin"
            self._log.rejected(is_fault=False, status=response.status_code, reason=reason)
        return response


class _BuiltFiles(StaticFiles):
    async def check_config(self) -> None:
        """Do not mind a folder that is not there: its files may be built at any time."""


class GraphQLFirst:
    """Answers `/graphql` before the router is asked: its layers cost a fifth of a small query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in {"/graphql", "/graphql/"}:
            await scope["app"].state.view(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def fault(request: Request, error: Exception) -> Response:
    """Say that a path beside `/graphql` failed; Starlette logs why, outside all middleware."""
    return PlainTextResponse("Internal Server Error\n", status_code=500, headers=SAFE_HEADERS)


async def healthz(request: Request) -> Response:
    """Say that the process is up, whatever it depends on."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Say whether reads can be served: 200 while the database answers, 503 while it does not."""
    state = request.app.state
    ping, redis, store = await asyncio.gather(
        state.database.ping(),
        state.queue_stats.ping(),
        state.storage.ping(seconds=PING_SECONDS),
    )
    return JSONResponse(
        {
            "database": "ok" if ping else "unavailable",
            "redis": "ok" if redis else "degraded",
            "store": "ok" if store else "degraded",
        },
        status_code=200 if ping else 503,
    )


async def metrics(request: Request) -> Response:
    """Write every metric: of all processes that share their folder, and what is asked just now."""
    state = request.app.state
    refused = access_error(request, state.settings)
    if refused is not None:
        return refused
    scraped = await metrics_collector.collect(state.database, state.queue_stats, state.storage)
    return await asyncio.to_thread(metrics_response, state.settings, scraped)
