"""The web application: `create_app(settings)`. Importing this module opens nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from segmentql import buffered_metrics, logs
from segmentql.adapters.change_hints import ChangeHints
from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.cors import with_cors
from segmentql.adapters.database import Database
from segmentql.adapters.http import (
    SAFE_HEADERS,
    LogRejections,
    RequestIds,
    SingleHeaders,
    WithHeaders,
)
from segmentql.adapters.jobs import JobPublisher
from segmentql.adapters.pages import STATIC, graphiql_page, page_routes
from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.root_path import without_root_path
from segmentql.adapters.storage import Storage
from segmentql.command_documents import COMMAND_DOCUMENTS
from segmentql.documents.loaders import stored_documents
from segmentql.documents.manifests import read_manifest
from segmentql.feed.reader import FeedReader
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.execution.request_documents import StoredDocuments
from segmentql.graphql.http.request_limits import request_limits
from segmentql.graphql.http.streams import make_transports
from segmentql.graphql.http.view import GraphQLView
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.graphql.types.idempotency import IdempotentRunner
from segmentql.idempotency.runner import DatabaseIdempotentRunner
from segmentql.keys.cache import ApiKeyCache
from segmentql.keys.loaders import KeyByPublicId
from segmentql.monitoring_endpoints import PING_TIMEOUT_SECONDS, monitoring_routes
from segmentql.ofrep.endpoint import OfrepEndpoint, is_ofrep_path
from segmentql.ofrep.evaluation_context import TargetingKey
from segmentql.rollouts.forecast import RolloutForecaster
from segmentql.schema import document_limits, make_schema, schema_exposure
from segmentql.settings import Settings, is_loopback
from segmentql.subgraph import make_subgraph
from segmentql.tracing import setup

KEY_CONNECTIONS: Final = 2
"""The connections of the API key cache: one for its refresh, one for lookups and last uses. They
are separate, so that a full pool does not delay authentication."""

KEY_STATEMENT_TIMEOUT_SECONDS: Final = 3

GRAPHQL_PATHS: Final = frozenset({"/graphql", "/graphql/"})
FEDERATION_PATHS: Final = frozenset({"/federation", "/federation/"})


def create_app(settings: Settings) -> Starlette:
    """Return the application. It connects at its startup and disconnects at its shutdown."""
    request_log = logs.request_log(settings)
    package_documents = _package_documents(settings)
    executor = _make_executor(settings, request_log)
    subgraph_executor = _make_subgraph_executor(settings, request_log)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        publisher = JobPublisher(settings.redis_url)
        hints = ChangeHints(settings.redis_url)
        database = Database(
            settings,
            name="segmentql api",
            publish=publisher.publish,
            on_history_commit=hints.publish,
        )
        consumer_limit = ConcurrencyLimit(
            settings.max_feed_consumers, settings.max_feed_consumers_per_key
        )
        feed = FeedReader(database, consumer_limit, hints)
        queue_stats = QueueStats(settings.redis_url, seconds=PING_TIMEOUT_SECONDS)
        storage = Storage(settings)
        rate_limiter = RateLimiter(settings.redis_url, per_second=settings.rate_per_second)
        app.state.database = database
        app.state.queue_stats = queue_stats
        app.state.storage = storage
        app.state.settings = settings
        # In the background: it takes half a second, and otherwise the first link would wait.
        opening = asyncio.create_task(storage.open())
        try:
            await database.start_replica_checks()
            async with _api_key_cache(settings) as keys:
                view = GraphQLView(
                    executor,
                    database,
                    storage,
                    app.state.stopping,
                    authenticate=keys.authenticate if keys else None,
                    rate_limiter=rate_limiter,
                    request_limits=request_limits(settings),
                    page=graphiql_page(settings),
                    checks_host=is_loopback(settings.host),
                    features={
                        FeedReader: feed,
                        RolloutForecaster: RolloutForecaster(database),
                        IdempotentRunner: DatabaseIdempotentRunner(database),
                        StoredDocuments: stored_documents(database, package_documents),
                    },
                    compresses=settings.compression == "on",
                    max_age_seconds=settings.get_max_age_seconds,
                    log=request_log,
                )
                app.state.websockets = make_transports(
                    view,
                    executor,
                    rate_limiter,
                    limit=consumer_limit,
                    stopping=app.state.stopping,
                    authenticate=keys.authenticate if keys else None,
                    allowed_origins=settings.cors_origins,
                    log=request_log,
                )
                endpoint = OfrepEndpoint(
                    view.services, TargetingKey(settings.ofrep_targeting_key), settings.ofrep_prefix
                )
                app.state.view, app.state.ofrep = (
                    with_cors(application, settings.cors_origins, request_log)
                    if settings.cors_origins
                    else application
                    for application in (view, endpoint)
                )
                app.state.subgraph = subgraph_executor and view.for_schema(subgraph_executor)
                yield
        finally:
            request_log.flush()
            buffered_metrics.flush()
            executor.close()
            if subgraph_executor:
                subgraph_executor.close()
            await asyncio.wait([opening])
            rate_limiter.close()
            queue_stats.close()
            await feed.close()
            await asyncio.to_thread(hints.close)
            await storage.close()
            await database.dispose()
            publisher.close()
            await asyncio.to_thread(setup.stop)

    app = _Application(
        routes=[*page_routes(settings), *monitoring_routes()],
        middleware=[
            Middleware(WithHeaders, SAFE_HEADERS),
            Middleware(RequestIds),
            Middleware(SingleHeaders, request_log),
            Middleware(LogRejections, request_log),
        ],
        exception_handlers={Exception: internal_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # its redirects would contain the client's Host header
    app.root_path = settings.root_path
    app.state.is_draining = False
    app.state.stopping = asyncio.Event()
    return app


def _package_documents(settings: Settings) -> list[str]:
    """Return the stored documents of the commands and of the console, if it is on."""
    console = read_manifest(STATIC / "documents.json") if settings.console == "on" else []
    return [*COMMAND_DOCUMENTS, *console]


def _make_executor(settings: Settings, log: logs.RequestLog) -> GraphQLExecutor:
    """Return the executor of `/graphql`."""
    return GraphQLExecutor(
        make_schema(),
        document_limits(settings),
        schema_exposure(settings),
        trusted_only=settings.documents == "trusted",
        log=log,
    )


def _make_subgraph_executor(settings: Settings, log: logs.RequestLog) -> GraphQLExecutor | None:
    """Return the executor of `/federation`, or None if it is off.

    The documents of a gateway depend on its clients, so they are not stored ones.
    """
    if settings.federation == "off":
        return None
    return GraphQLExecutor(
        make_subgraph(), document_limits(settings), schema_exposure(settings), log=log
    )


@asynccontextmanager
async def _api_key_cache(settings: Settings) -> AsyncIterator[ApiKeyCache | None]:
    """Run the API key cache with its own connections. It is None if authentication is off."""
    if settings.auth == "off":
        yield None
        return
    changes = {
        "database_read_url": None,
        "database_pool_size": KEY_CONNECTIONS,
        "statement_timeout_seconds": KEY_STATEMENT_TIMEOUT_SECONDS,
    }
    database = Database(
        settings.model_copy(update=changes), name="segmentql keys", publish=lambda messages: None
    )
    cache = ApiKeyCache(database, LoaderRegistry(database, primary=True).get(KeyByPublicId).load)
    try:
        async with cache.running():
            yield cache
    finally:
        await database.dispose()


class _Application(Starlette):
    """The application. GraphQL and OFREP bypass Starlette's middleware and router."""

    root_path = ""
    """The setting `SEGMENTQL_ROOT_PATH`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path:
            scope = without_root_path(scope, self.root_path)
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path in GRAPHQL_PATHS:
            await self.state.view(scope, receive, send)
        elif scope["type"] == "http" and is_ofrep_path(path):
            await self.state.ofrep(scope, receive, send)
        elif scope["type"] == "http" and path in FEDERATION_PATHS and self.state.subgraph:
            await self.state.subgraph(scope, receive, send)
        elif scope["type"] == "websocket" and path in GRAPHQL_PATHS:
            await self.state.websockets(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def internal_error(request: Request, error: Exception) -> Response:
    """Respond to an error outside `/graphql`. Starlette logs its cause outside all middleware."""
    return PlainTextResponse("Internal Server Error\n", status_code=500, headers=SAFE_HEADERS)
