"""The view of `/graphql`: GraphQL over HTTP, and the GraphiQL page.

POST requests have a JSON body, and GET requests can only be queries. POST bodies in a content type
that an HTML form can send are rejected, so that no web page can make a browser execute a mutation.
A request that is rejected before its execution gets the status 400 if the response has the type
`application/graphql-response+json`, and 200 if it has the type `application/json`.

Source: https://graphql.github.io/graphql-over-http/draft/
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.http import (
    REPEATED_HEADER,
    header_value,
    repeated_header,
    request_id_of,
)
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.client_connection import ClientConnection
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadlines
from segmentql.graphql.execution.executor import (
    ExecutionResponse,
    GraphQLExecutor,
    MethodNotAllowed,
)
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.http.authentication import Authenticate, RequestAuthenticator
from segmentql.graphql.http.context_factory import ContextFactory
from segmentql.graphql.http.graphiql_page import graphiql_page
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    body_too_slow,
    error_response,
    method_not_allowed,
    mutation_by_get,
    not_acceptable,
    overloaded,
)
from segmentql.graphql.http.media_types import GRAPHQL_JSON, JSON, Accepted, negotiate
from segmentql.graphql.http.request_limits import RequestLimits
from segmentql.graphql.http.request_parsing import (
    Headers,
    accept_header,
    read_request,
    request_of_query_string,
)
from segmentql.graphql.http.response_sender import ResponseSender, UnreadResponsesExceeded
from segmentql.graphql.http.responses import PreparedResponse, json_response, retry_after
from segmentql.graphql.types.error_causes import FAULT_CODES, describe_error
from segmentql.graphql.types.errors import (
    Code,
    format_internal_error,
    format_response_too_large,
    format_timeout,
    format_unread_response,
)
from segmentql.logs import REQUEST_ID, RequestLog


class GraphQLView:
    """The ASGI application of `/graphql`. A process has one."""

    def __init__(
        self,
        executor: GraphQLExecutor,
        database: Database,
        storage: Storage,
        stopping: asyncio.Event,
        *,
        authenticate: Authenticate | None,
        rate_limiter: RateLimiter,
        request_limits: RequestLimits,
        page: Path | None,
        checks_host: bool = False,
        features: Mapping[type, Any] | None = None,
        log: RequestLog | None = None,
    ) -> None:
        """Create the view.

        Args:
            executor: The executor of requests.
            database: The database.
            storage: The object store.
            stopping: The event that is set when the process shuts down.
            authenticate: The function that authenticates requests; None if no API key is required.
            rate_limiter: The rate limiter of API keys.
            request_limits: The limits of requests and responses.
            page: The file of the GraphiQL page; None if the page is disabled.
            checks_host: Whether the `Host` header must name this machine if no API key is required.
            features: The objects that features share among all requests, by their type.
            log: The log of requests.
        """
        self.authenticator = RequestAuthenticator(
            authenticate, rate_limiter, checks_host=checks_host
        )
        self.contexts = ContextFactory(database, storage, stopping, features=features or {})
        self._executor = executor
        self.request_limits = request_limits
        self._page = page
        self._log = log
        self._deadlines = Deadlines(request_limits.request_seconds)
        self._response_sender = ResponseSender(
            response_bytes=request_limits.response_bytes,
            send_seconds=request_limits.send_seconds,
            log=log,
        )
        self._in_flight = 0
        self.event_streams: ASGIApp | None = None
        """The application of requests that accept event streams only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's Request and middleware would take as much time as a small query.
        header_lines = scope["headers"]
        headers = dict(header_lines)
        accepted = negotiate(accept_header(headers, header_lines))
        if accepted.event_stream and self.event_streams is not None:
            await self.event_streams(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if "request_id" not in state:
            state["request_id"] = request_id_of(
                headers.get(b"x-request-id")
                if len(headers) == len(header_lines)
                else header_value(header_lines, b"x-request-id")
            )
        token = REQUEST_ID.set(state["request_id"])
        self._in_flight += 1
        try:
            response = await self._response(scope, headers, receive, accepted)
            await self._response_sender.send(response, scope, receive, send)
        finally:
            self._in_flight -= 1
            REQUEST_ID.reset(token)
            if self._log and not self._in_flight:
                self._log.flush()  # there is no line to wait for

    async def _response(
        self, scope: Scope, headers: Headers, receive: Receive, accepted: Accepted
    ) -> PreparedResponse:
        """Return the response to a request, whatever the request raises."""
        media_type = accepted.json or JSON
        try:
            return await self._handle(scope, headers, receive, accepted)
        except HttpRequestError as rejection:
            self._log_rejection(
                scope, rejection.status, rejection.extensions["code"], rejection.reason
            )
            return error_response(rejection, media_type)
        except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
            error = format_internal_error(fault, request_id=scope["state"]["request_id"])
            # Only authentication raises database errors here; the executor formats its own.
            status = 503 if isinstance(fault, Unavailable | TimedOut) else 500
            if error["extensions"]["code"] != Code.INTERNAL:  # logged with its traceback already
                reason = describe_error(fault)
                self._log_rejection(scope, status, error["extensions"]["code"], reason)
            return json_response({"errors": [error]}, status, media_type)

    async def _handle(
        self, scope: Scope, headers: Headers, receive: Receive, accepted: Accepted
    ) -> PreparedResponse:
        """Authenticate, read and execute a request.

        Raises:
            HttpRequestError: The request is rejected.
        """
        if len(headers) < len(scope["headers"]):
            repeated = repeated_header(scope["headers"])
            if repeated:
                raise HttpRequestError(400, REPEATED_HEADER.format(repeated))
        if self._in_flight > self.request_limits.requests_in_flight:
            raise overloaded(self.request_limits.requests_in_flight)
        method: str = scope["method"]
        if method not in {"GET", "POST"}:
            raise method_not_allowed("Use POST or GET for GraphQL requests.", "GET, POST")
        parameters = QueryParams(scope["query_string"]) if method == "GET" else None
        if parameters is not None and "query" not in parameters and self._page and accepted.html:
            return graphiql_page(self._page, needs_key=self.authenticator.needs_key)
        if accepted.json is None:
            raise not_acceptable(f"{GRAPHQL_JSON} or {JSON}")
        media_type = accepted.json
        principal = await self.authenticator.authenticate(headers)
        context: Context | None = None
        deadline = self._deadlines.new_deadline()
        client = ClientConnection(
            receive,
            authenticate=self.authenticator.authenticate_key,
            authorization=headers.get(b"authorization"),
        )
        try:
            with client, deadline:
                request = (
                    await read_request(headers, receive, self.request_limits.body_bytes)
                    if parameters is None
                    else request_of_query_string(parameters)
                )
                context = self.contexts.new_context(
                    headers, principal, deadline, scope["state"]["request_id"]
                )
                context.client = client
                response = await self._executor.execute(
                    request, context, queries_only=method == "GET"
                )
                status = _status(response, media_type)
                prepared = await self._response_sender.prepare(response, status, media_type)
                return prepared if context.idempotency is None else _with_retry(prepared, context)
        except MethodNotAllowed:
            raise mutation_by_get() from None
        except TimeoutError:
            if not deadline.has_expired:
                raise
            if context is None:
                raise body_too_slow(self._deadlines.seconds) from None
            metrics.REQUESTS_REJECTED.labels("time").inc()
            error = format_timeout(self._deadlines.seconds, is_mutation=context.is_mutation)
        except ResponseTooLarge as too_large:
            assert context is not None  # noqa: S101 - the request was executed
            error = format_response_too_large(
                too_large, is_mutation=context.is_mutation, is_complete=True
            )
            self._log_unsendable(scope, error)
        except UnreadResponsesExceeded:
            assert context is not None  # noqa: S101 - the request was executed
            error = format_unread_response(is_mutation=context.is_mutation)
            self._log_unsendable(scope, error)
        body: dict[str, Any] = {"data": None, "errors": [error]}
        return json_response(body, 200, media_type)

    def _log_unsendable(self, scope: Scope, error: Mapping[str, Any]) -> None:
        """Log and count a request that was executed and whose response is not sent."""
        metrics.REQUESTS_REJECTED.labels("size").inc()
        self._log_rejection(scope, 200, error["extensions"]["code"], error["message"])

    def _log_rejection(self, scope: Scope, status: int, code: object, reason: str) -> None:
        if self._log:
            self._log.rejected(
                is_fault=code in FAULT_CODES,
                request_id=scope["state"]["request_id"],
                status=status,
                code=code,
                reason=reason,
            )


def _with_retry(response: PreparedResponse, context: Context) -> PreparedResponse:
    """Add `Retry-After` if the client should repeat a mutation whose idempotency key is in use."""
    if context.idempotency and context.idempotency.retry_after_seconds:
        response.headers = retry_after(context.idempotency.retry_after_seconds)
    return response


def _status(response: ExecutionResponse, media_type: str) -> int:
    return 400 if media_type == GRAPHQL_JSON and not response.executed else 200
