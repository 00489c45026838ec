"""The steps that requests to `/graphql` and to OFREP have in common.

Both have the request id, the limit of requests in flight, authentication, the time limit, the log
line of a rejected request, and the sending of the response. Starlette's Request and middleware
would take as much time as a small query.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from segmentql.adapters.http import (
    REPEATED_HEADER,
    header_value,
    repeated_header,
    request_id_of,
)
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.http.authentication import RequestAuthenticator
from segmentql.graphql.http.compression import ResponseCompressor
from segmentql.graphql.http.context_factory import ContextFactory
from segmentql.graphql.http.http_errors import HttpRequestError, overloaded
from segmentql.graphql.http.request_limits import RequestLimits
from segmentql.graphql.http.request_parsing import Headers
from segmentql.graphql.http.response_sender import ResponseSender
from segmentql.graphql.http.responses import PreparedResponse
from segmentql.graphql.types.error_causes import FAULT_CODES, describe_error
from segmentql.graphql.types.errors import Code, format_internal_error
from segmentql.logs import REQUEST_ID, RequestLog
from segmentql.tracing import active, setup


class ViewServices:
    """The objects that all views of a process share."""

    def __init__(
        self,
        authenticator: RequestAuthenticator,
        contexts: ContextFactory,
        limits: RequestLimits,
        *,
        compresses: bool,
        log: RequestLog | None,
    ) -> None:
        """Create the objects.

        Args:
            authenticator: The authenticator of requests.
            contexts: The factory of the contexts of requests.
            limits: The limits of requests and responses.
            compresses: Whether responses are compressed for clients that accept it.
            log: The log of requests.
        """
        self.authenticator = authenticator
        self.contexts = contexts
        self.limits = limits
        self.log = log
        self.deadlines = Deadlines(limits.request_seconds)
        self.response_sender = ResponseSender(
            response_bytes=limits.response_bytes,
            send_seconds=limits.send_seconds,
            compressor=ResponseCompressor() if compresses else None,
            log=log,
        )
        self.in_flight = 0
        """The number of requests of all views that have no complete response yet."""


class HttpView(ABC):
    """An ASGI application that responds to requests. A subclass implements its protocol."""

    def __init__(self, services: ViewServices) -> None:
        self.services = services
        self._is_traced = setup.is_on()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header_lines = scope["headers"]
        headers = dict(header_lines)
        application = self.other_application(headers, scope)
        if application is not None:
            await application(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if "request_id" not in state:
            state["request_id"] = request_id_of(
                headers.get(b"x-request-id")
                if len(headers) == len(header_lines)
                else header_value(header_lines, b"x-request-id")
            )
        token = REQUEST_ID.set(state["request_id"])
        services = self.services
        services.in_flight += 1
        span = self._start_span(scope, headers) if self._is_traced else None
        status: int | None = None
        try:
            response = await self._response(scope, headers, receive)
            status = response.status
            await services.response_sender.send(response, scope, receive, send)
        finally:
            services.in_flight -= 1
            if span is not None:
                span.end_request(status)
            REQUEST_ID.reset(token)
            if services.log and not services.in_flight:
                services.log.flush()  # there is no line to wait for

    def other_application(self, headers: Headers, scope: Scope) -> ASGIApp | None:
        """Return the application that handles the request instead; None if this one does."""
        return None

    def route(self, scope: Scope) -> str:
        """Return the path of a request without values that differ between requests."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path

    def _start_span(self, scope: Scope, headers: Headers) -> active.ActiveSpan:
        return active.start_request(
            scope["method"], self.route(scope), headers, scope["state"]["request_id"]
        )

    @abstractmethod
    async def handle(self, scope: Scope, headers: Headers, receive: Receive) -> PreparedResponse:
        """Authenticate, read and execute a request.

        Raises:
            HttpRequestError: The request is rejected.
        """

    @abstractmethod
    def error_response(
        self, status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None, scope: Scope
    ) -> PreparedResponse:
        """Return the response to a request that was not executed.

        Args:
            status: The HTTP status.
            error: The error with its `message` and its `extensions`.
            headers: Additional headers of the response.
            scope: The scope of the request.
        """

    async def _response(self, scope: Scope, headers: Headers, receive: Receive) -> PreparedResponse:
        """Return the response to a request, whatever the request raises."""
        try:
            return await self.handle(scope, headers, receive)
        except HttpRequestError as rejection:
            self.log_rejection(
                scope, rejection.status, rejection.extensions["code"], rejection.reason
            )
            return self.error_response(
                rejection.status, rejection.error(), rejection.headers, scope
            )
        except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
            error = format_internal_error(fault, request_id=scope["state"]["request_id"])
            # Only authentication raises database errors here; the execution formats its own.
            status = 503 if isinstance(fault, Unavailable | TimedOut) else 500
            if error["extensions"]["code"] != Code.INTERNAL:  # logged with its traceback already
                reason = describe_error(fault)
                self.log_rejection(scope, status, error["extensions"]["code"], reason)
            return self.error_response(status, error, None, scope)

    def check_admission(self, scope: Scope, headers: Headers) -> None:
        """Check that a request repeats no header, and that the process may accept it.

        Raises:
            HttpRequestError: A header is repeated, or too many requests are in flight.
        """
        if len(headers) < len(scope["headers"]):
            repeated = repeated_header(scope["headers"])
            if repeated:
                raise HttpRequestError(400, REPEATED_HEADER.format(repeated))
        if self.services.in_flight > self.services.limits.requests_in_flight:
            raise overloaded(self.services.limits.requests_in_flight)

    def log_rejection(self, scope: Scope, status: int, code: object, reason: str) -> None:
        """Log a request that was not executed, or whose response is not sent."""
        if self.services.log:
            self.services.log.rejected(
                is_fault=code in FAULT_CODES,
                request_id=scope["state"]["request_id"],
                status=status,
                code=code,
                reason=reason,
            )
