"""The HTTP errors of `/graphql`: responses to requests that are rejected before execution."""

from collections.abc import Mapping
from typing import Any, Final

from segmentql import metrics
from segmentql.errors import AuthenticationFailure, TimedOut, Unavailable
from segmentql.graphql.http.responses import PreparedResponse, json_response
from segmentql.graphql.types.error_causes import describe_error, truncate
from segmentql.graphql.types.errors import Code

RETRY_SECONDS: Final = 1
"""The value of `Retry-After`, in seconds."""


class HttpRequestError(Exception):
    """The HTTP request is rejected and not executed."""

    def __init__(
        self,
        status: int,
        message: str,
        code: Code = Code.BAD_REQUEST,
        *,
        headers: Mapping[str, str] | None = None,
        reason: str = "",
        **extensions: object,
    ) -> None:
        """Create the error.

        Args:
            status: The HTTP status.
            message: The message for the client.
            code: The `extensions.code` of the GraphQL error in the body.
            headers: Additional headers of the response.
            reason: The reason in the log line; if empty, the message.
            extensions: Other `extensions` of the GraphQL error.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.reason = truncate(reason or message)
        self.extensions = {"code": code, **extensions}

    def error(self) -> dict[str, Any]:
        """Return the GraphQL error of the body, and count it."""
        metrics.ERRORS.labels(self.extensions["code"]).inc()
        return {"message": self.message, "extensions": self.extensions}


def error_response(rejection: HttpRequestError, media_type: str) -> PreparedResponse:
    """Return the response to a rejected request, and count its error."""
    body = {"errors": [rejection.error()]}
    return json_response(body, rejection.status, media_type, rejection.headers)


KEY_HEADER: Final = "Authorization: Bearer sgql_<id>_<secret>"
"""The form of the header with the API key, in messages."""


def unauthenticated(failure: AuthenticationFailure) -> HttpRequestError:
    """Return the error for a request without a valid API key.

    The message is the same for an unknown key, a revoked key and a wrong secret.
    """
    metrics.AUTHENTICATION_FAILURES.labels(failure).inc()
    message = {
        AuthenticationFailure.MISSING: f"Send an API key: {KEY_HEADER}.",
        AuthenticationFailure.MALFORMED: f"The API key must be sent as {KEY_HEADER}.",
    }.get(failure, "This API key is not valid.")
    headers = {"www-authenticate": 'Bearer realm="segmentql"'}
    reason = f"the API key is {failure.replace('_', ' ')}"
    return HttpRequestError(401, message, Code.UNAUTHENTICATED, headers=headers, reason=reason)


def method_not_allowed(message: str, allow: str) -> HttpRequestError:
    """Return the error for a method that is not allowed (405); `allow` lists the allowed ones."""
    return HttpRequestError(405, message, headers={"allow": allow})


def not_acceptable(allowed: str) -> HttpRequestError:
    """Return the error for a client that accepts none of the `allowed` media types (406)."""
    return HttpRequestError(406, f"The Accept header must allow {allowed}.")


def mutation_by_get() -> HttpRequestError:
    """Return the error of a mutation that was sent by GET (405)."""
    return method_not_allowed("Use POST for mutations. GET is only for queries.", "POST")


def unsupported_encoding() -> HttpRequestError:
    """Return the error for a compressed body (415)."""
    return HttpRequestError(
        415,
        "Compressed bodies are not supported. The Content-Encoding must be identity or absent.",
        headers={"accept-encoding": "identity"},
        allowed="identity",
    )


def body_too_slow(seconds: float) -> HttpRequestError:
    """Return the error for a body that was not received within the time limit (408)."""
    metrics.REQUESTS_REJECTED.labels("body").inc()
    return HttpRequestError(
        408,
        f"The body was not received within {seconds:g} s. The request was not executed.",
        Code.TIMEOUT,
        headers={"connection": "close"},  # the client may still send the rest of the body
        limit=seconds,
    )


def overloaded(limit: int) -> HttpRequestError:
    """Return the error for a request beyond the limit of concurrent requests (503).

    The request does not wait in a queue, because another process may have capacity for it.
    """
    metrics.REQUESTS_REJECTED.labels("busy").inc()
    return HttpRequestError(
        503,
        f"The server process already handles {limit} requests. The request was not executed.",
        Code.UNAVAILABLE,
        headers={"retry-after": str(RETRY_SECONDS), "connection": "close"},  # the body is unread
        limit=limit,
    )


def too_many_streams(limit: int, *, is_per_key: bool) -> HttpRequestError:
    """Return the error of a stream beyond the limit of its key (429) or of the process (503)."""
    metrics.REQUESTS_REJECTED.labels("streams").inc()
    owner = "API key" if is_per_key else "server process"
    return HttpRequestError(
        429 if is_per_key else 503,
        f"The {owner} already has its maximum of {limit} streams.",
        Code.LIMIT_EXCEEDED if is_per_key else Code.UNAVAILABLE,
        headers={"retry-after": str(RETRY_SECONDS)},
        limit=limit,
    )


def too_many_operations(limit: int) -> HttpRequestError:
    """Return the error of a subscription beyond the limit of its WebSocket."""
    metrics.REQUESTS_REJECTED.labels("streams").inc()
    message = f"The WebSocket already has its maximum of {limit} operations."
    return HttpRequestError(429, message, Code.LIMIT_EXCEEDED, limit=limit)


def shutting_down() -> HttpRequestError:
    """Return the error of a stream that is requested while the process shuts down (503)."""
    return HttpRequestError(
        503,
        "The server process is shutting down.",
        Code.UNAVAILABLE,
        headers={"retry-after": str(RETRY_SECONDS), "connection": "close"},
    )


def database_unavailable(error: Unavailable | TimedOut) -> HttpRequestError:
    """Return the error of a stream whose API key cannot be read from the database (503)."""
    is_timeout = isinstance(error, TimedOut)
    return HttpRequestError(
        503,
        "The database query timed out." if is_timeout else "The database is unavailable.",
        Code.TIMEOUT if is_timeout else Code.UNAVAILABLE,
        headers={"retry-after": str(RETRY_SECONDS)},
        reason=describe_error(error),
    )


def rate_limited(limit: int) -> HttpRequestError:
    """Return the error for a request beyond the rate limit of its API key (429)."""
    metrics.REQUESTS_REJECTED.labels("rate").inc()
    return HttpRequestError(
        429,
        f"The API key exceeded {limit} requests per second. The request was not executed.",
        Code.RATE_LIMITED,
        headers={"retry-after": str(RETRY_SECONDS)},
        limit=limit,
    )
