"""The composition of the transports of streams."""

import asyncio
from collections.abc import Collection

from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.http import SAFE_HEADERS, RequestIds, SingleHeaders, WithHeaders
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.http.authentication import Authenticate
from segmentql.graphql.http.sse import EventStreams
from segmentql.graphql.http.stream_dependencies import StreamDependencies
from segmentql.graphql.http.stream_registry import StreamRegistry
from segmentql.graphql.http.view import GraphQLView
from segmentql.graphql.http.websocket import GraphQLWebSockets
from segmentql.logs import RequestLog


def make_transports(
    view: GraphQLView,
    executor: GraphQLExecutor,
    rate_limiter: RateLimiter,
    *,
    limit: ConcurrencyLimit,
    stopping: asyncio.Event,
    authenticate: Authenticate | None,
    allowed_origins: Collection[str],
    log: RequestLog,
) -> GraphQLWebSockets:
    """Create the transports of streams, and let the view serve event streams.

    Returns:
        The application of WebSockets.
    """
    dependencies = StreamDependencies(
        executor=executor,
        authenticate=view.services.authenticator.authenticate,
        check_host=view.services.authenticator.check_host,
        new_context=view.services.contexts.new_context,
        rate_limiter=rate_limiter,
        registry=StreamRegistry(limit, stopping=stopping, authenticate=authenticate),
        limits=view.services.limits,
        allowed_origins=allowed_origins,
        log=log,
    )
    streams = SingleHeaders(EventStreams(dependencies), log)
    view.event_streams = WithHeaders(RequestIds(streams), SAFE_HEADERS)
    return GraphQLWebSockets(dependencies)
