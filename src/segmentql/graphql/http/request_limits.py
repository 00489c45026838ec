"""The limits of HTTP requests, responses and streams."""

from dataclasses import dataclass

from segmentql.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """The limits of HTTP requests and responses. Each is a setting."""

    body_bytes: int
    """The maximum size of a request's body, in bytes."""
    requests_in_flight: int
    """The maximum number of concurrent requests in this process."""
    request_seconds: float
    """The time limit of a request, from reading its body to the end of its execution."""
    response_bytes: int
    """The maximum size of a response before its compression, in bytes."""
    send_seconds: float
    """The time limit in which the client must read the response."""


def request_limits(settings: Settings) -> RequestLimits:
    """Return the limits that the settings allow."""
    return RequestLimits(
        body_bytes=settings.max_body_bytes,
        requests_in_flight=settings.max_requests_in_flight,
        request_seconds=settings.request_timeout_seconds,
        response_bytes=settings.max_response_bytes,
        send_seconds=settings.send_timeout_seconds,
    )
