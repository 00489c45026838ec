"""The composition of the transports of streams."""

import asyncio
from collections.abc import Collection

from segmentql.adapters.http import SAFE_HEADERS, RequestIds, SingleHeaders, WithHeaders
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.http.authentication import Authenticate
from segmentql.graphql.http.sse import EventStreams
from segmentql.graphql.http.stream_registry import StreamLimits, StreamRegistry
from segmentql.graphql.http.stream_services import StreamServices
from segmentql.graphql.http.view import GraphQLView
from segmentql.graphql.http.websocket import GraphQLWebSockets
from segmentql.logs import RequestLog


def add_streams(
    view: GraphQLView,
    executor: GraphQLExecutor,
    rate_limiter: RateLimiter,
    *,
    limits: StreamLimits,
    stopping: asyncio.Event,
    authenticate: Authenticate | None,
    allowed_origins: Collection[str],
    log: RequestLog,
) -> GraphQLWebSockets:
    """Let a view serve event streams; return the application of WebSockets."""
    services = StreamServices(
        executor=executor,
        authenticate=view.authenticator.authenticate,
        check_host=view.authenticator.check_host,
        new_context=view.contexts.new_context,
        rate_limiter=rate_limiter,
        registry=StreamRegistry(limits, stopping=stopping, authenticate=authenticate),
        limits=view.request_limits,
        allowed_origins=allowed_origins,
        log=log,
    )
    streams = SingleHeaders(EventStreams(services), log)
    view.event_streams = WithHeaders(RequestIds(streams), SAFE_HEADERS)
    return GraphQLWebSockets(services)
