"""HTTP answers of `/graphql`: an answer's body, and refusals of requests that execute nothing."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

from segmentql import metrics
from segmentql.errors import AuthenticationFailure
from segmentql.graphql.types.error_causes import shorten
from segmentql.graphql.types.errors import Code

RETRY_SECONDS: Final = 1
"""When whoever was turned away may come again."""


class HttpRequestError(Exception):
    """The HTTP request is not one that is executed; `extensions` are those of the error told."""

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
        """Make it.

        Args:
            reason: The cause for the log line, if it is not the message.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.reason = shorten(reason or message)
        self.extensions = {"code": code, **extensions}


def error_response(refused: HttpRequestError, media_type: str) -> Response:
    metrics.ERRORS.labels(refused.extensions["code"]).inc()
    error = {"message": refused.message, "extensions": refused.extensions}
    response = json_response({"errors": [error]}, refused.status, media_type)
    response.headers.update(refused.headers or {})
    return response


def json_response(body: Mapping[str, Any], status: int, media_type: str) -> Response:
    return Response(
        orjson.dumps(body), status_code=status, media_type=f"{media_type}; charset=utf-8"
    )


def unauthenticated(failure: AuthenticationFailure) -> HttpRequestError:
    """Return the error for a request without a valid API key.

    The message is the same for an unknown key, a revoked key and a wrong secret.
    """
    metrics.AUTHENTICATION_FAILURES.labels(failure).inc()
    header = "Authorization: Bearer sgql_<id>_<secret>"
    message = {
        AuthenticationFailure.MISSING: f"Send an API key: {header}.",
        AuthenticationFailure.MALFORMED: f"The API key must be sent as {header}.",
    }.get(failure, "This API key is not valid.")
    headers = {"www-authenticate": 'Bearer realm="segmentql"'}
    reason = f"the API key is {failure.replace('_', ' ')}"
    return HttpRequestError(401, message, Code.UNAUTHENTICATED, headers=headers, reason=reason)


def not_allowed(message: str, allow: str) -> HttpRequestError:
    """Say which methods would be right."""
    return HttpRequestError(405, message, headers={"allow": allow})


def unsupported_encoding() -> HttpRequestError:
    """Reject a compressed body, and say that only plain ones are read."""
    return HttpRequestError(
        415,
        "The body is compressed (Content-Encoding); send it as it is (identity).",
        headers={"accept-encoding": "identity"},
        allowed="identity",
    )


def body_too_slow(seconds: float) -> HttpRequestError:
    """Say that a body did not come in time."""
    metrics.REQUESTS_REJECTED.labels("body").inc()
    return HttpRequestError(
        408,
        f"The body took longer than {seconds:g} s; nothing was done.",
        Code.TIMEOUT,
        headers={"connection": "close"},  # the rest of it may still come
        limit=seconds,
    )


def overloaded(limit: int) -> HttpRequestError:
    """Say that this process is full: no queue without end, and another process may have room."""
    metrics.REQUESTS_REJECTED.labels("busy").inc()
    return HttpRequestError(
        503,
        f"This process answers {limit} requests already; nothing was done.",
        Code.UNAVAILABLE,
        headers={"retry-after": str(RETRY_SECONDS), "connection": "close"},  # the body is unread
        limit=limit,
    )


def rate_limited(limit: int) -> HttpRequestError:
    """Say that a key asked more often than one may."""
    metrics.REQUESTS_REJECTED.labels("rate").inc()
    return HttpRequestError(
        429,
        f"This API key asks more often than {limit} times a second; nothing was done.",
        Code.RATE_LIMITED,
        headers={"retry-after": str(RETRY_SECONDS)},
        limit=limit,
    )
