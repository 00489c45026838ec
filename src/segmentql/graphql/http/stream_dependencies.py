"""The objects of the process that the transports of streams, SSE and WebSocket, use."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from segmentql import metrics
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadline, Deadlines
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.execution.subscription_results import Subscription
from segmentql.graphql.http.request_limits import RequestLimits
from segmentql.graphql.http.request_parsing import Headers
from segmentql.graphql.http.result_serializer import ResultSerializer
from segmentql.graphql.http.stream_registry import EndReason, StreamRegistry
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.graphql.types.errors import Code
from segmentql.logs import RequestLog
from segmentql.principal import Principal

_CAUSES: Final = {
    EndReason.REVOKED: FailureCause(Code.UNAUTHENTICATED, "the API key is not valid any more"),
    EndReason.UNREAD: FailureCause("UNREAD", "the client did not read the stream in time"),
    EndReason.INVALID: FailureCause(Code.BAD_REQUEST, "the client violated the protocol"),
    EndReason.RATE_LIMITED: FailureCause(
        Code.RATE_LIMITED, "the client exceeded the rate limit of its API key"
    ),
}
"""The causes of ends that the log must have."""


@dataclass(frozen=True, kw_only=True)
class StreamDependencies:
    """The objects of the process that the transports of streams need."""

    executor: GraphQLExecutor
    authenticate: Callable[[Headers], Awaitable[Principal]]
    """The function that authenticates a request by its headers and takes a token of its rate."""
    check_host: Callable[[Headers], None]
    """The function that rejects the `Host` header of another machine if no key is required."""
    new_context: Callable[[Headers, Principal, Deadline | None, str], Context]
    rate_limiter: RateLimiter
    registry: StreamRegistry
    limits: RequestLimits
    allowed_origins: Collection[str]
    """The origins of pages on other hosts that may open a WebSocket."""
    log: RequestLog | None
    serializer: ResultSerializer = field(init=False)
    execution_deadlines: Deadlines = field(init=False)
    """The time limits of requests, and of the execution of each event."""
    send_deadlines: Deadlines = field(init=False)
    """The time limits in which clients must read what they are sent."""

    def __post_init__(self) -> None:
        limits = self.limits
        object.__setattr__(self, "serializer", ResultSerializer(limits.response_bytes))
        object.__setattr__(self, "execution_deadlines", Deadlines(limits.request_seconds))
        object.__setattr__(self, "send_deadlines", Deadlines(limits.send_seconds))


def record_stream_end(subscription: Subscription, reason: EndReason) -> None:
    """Count and log the end of a subscription."""
    if reason in _CAUSES and subscription.context.cause is None:
        subscription.context.cause = _CAUSES[reason]
    metrics.STREAMS_ENDED.labels(reason).inc()
    subscription.log_outcome(reason)
