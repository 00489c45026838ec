"""CORS for the allowed origins, with a log line for each rejected preflight request."""

from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from segmentql.adapters.http import SAFE_HEADERS, RequestIds, SingleHeaders, WithHeaders
from segmentql.logs import RequestLog


def with_cors(app: ASGIApp, allowed_origins: Sequence[str], log: RequestLog) -> ASGIApp:
    """Return an application with CORS for the allowed origins, which send API keys and no cookies.

    The CORS middleware responds to preflight requests itself, so the wrappers below add the request
    id and the security headers to its responses.
    """
    cors = _LoggedCors(
        app,
        log=log,
        allow_origins=allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=(
            "authorization",
            "idempotency-key",
            "if-none-match",
            "last-event-id",
            "segmentql-read",
            "traceparent",
            "tracestate",
            "x-api-key",
            "x-request-id",
        ),
        expose_headers=("etag", "retry-after", "x-request-id"),
    )
    return WithHeaders(RequestIds(SingleHeaders(cors, log)), SAFE_HEADERS)


class _LoggedCors(CORSMiddleware):
    """CORS middleware that logs rejected preflight requests, which do not reach the view."""

    def __init__(self, app: ASGIApp, *, log: RequestLog, **options: Any) -> None:
        super().__init__(app, **options)
        self._log = log

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code != 200:  # noqa: PLR2004 - OK
            reason = bytes(response.body).decode()  # such as "Disallowed CORS origin"
            self._log.rejected(is_fault=False, status=response.status_code, reason=reason)
        return response
