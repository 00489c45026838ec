"""The limits of HTTP requests, responses and streams."""

from dataclasses import dataclass


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
    """The maximum size of a response, in bytes."""
    send_seconds: float
    """The time limit in which the client must read the response."""
