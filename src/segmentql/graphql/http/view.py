"""The view of `/graphql`: GraphQL over HTTP, and the GraphiQL page.

POST requests have a JSON body, and GET requests can only be queries. POST bodies in a content type
that an HTML form can send are rejected, so that no web page can make a browser execute a mutation.
A request that is rejected before its execution gets the status 400 if the response has the type
`application/graphql-response+json`, and 200 if it has the type `application/json`. It gets the
status 503 if the database is not available and the document of the request could not be read.

Source: https://graphql.github.io/graphql-over-http/draft/
"""

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.pages import Page
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.graphql.client_connection import ClientConnection
from segmentql.graphql.context import Context
from segmentql.graphql.execution.executor import (
    ExecutionResponse,
    GraphQLExecutor,
    MethodNotAllowed,
)
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.http.authentication import Authenticate, RequestAuthenticator
from segmentql.graphql.http.context_factory import ContextFactory
from segmentql.graphql.http.entity_tags import entity_tag, with_entity_tag
from segmentql.graphql.http.http_errors import (
    RETRY_SECONDS,
    body_too_slow,
    method_not_allowed,
    mutation_by_get,
    not_acceptable,
)
from segmentql.graphql.http.http_view import HttpView, ViewServices
from segmentql.graphql.http.media_types import GRAPHQL_JSON, JSON, Accepted, negotiate
from segmentql.graphql.http.request_limits import RequestLimits
from segmentql.graphql.http.request_parsing import (
    Headers,
    list_header,
    read_request,
    request_of_query_string,
)
from segmentql.graphql.http.response_sender import UnreadResponsesExceeded
from segmentql.graphql.http.responses import (
    PreparedResponse,
    cache_headers,
    json_response,
    page_response,
    retry_after,
)
from segmentql.graphql.types.errors import (
    format_response_too_large,
    format_timeout,
    format_unread_response,
)
from segmentql.logs import RequestLog


class GraphQLView(HttpView):
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
        page: Page | None,
        checks_host: bool = False,
        features: Mapping[type, Any] | None = None,
        compresses: bool = False,
        max_age_seconds: int = 0,
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
            page: The GraphiQL page; None if it is disabled.
            checks_host: Whether the `Host` header must name this machine if no API key is required.
            features: The objects that features share among all requests, by their type.
            compresses: Whether responses are compressed for clients that accept it.
            max_age_seconds: The time for which clients may cache the results of GET requests, in
                seconds; 0 if they may not.
            log: The log of requests.
        """
        super().__init__(
            ViewServices(
                RequestAuthenticator(authenticate, rate_limiter, checks_host=checks_host),
                ContextFactory(database, storage, stopping, features=features or {}),
                request_limits,
                compresses=compresses,
                log=log,
            )
        )
        self._cache_headers = cache_headers(max_age_seconds)
        self._executor = executor
        self._page = page
        self.event_streams: ASGIApp | None = None
        """The application of requests that accept event streams only."""

    def for_schema(self, executor: GraphQLExecutor) -> "GraphQLView":
        """Return a view of another schema, without page and event streams.

        Both views share everything else, such as the loaders and the limit of requests in flight.

        Args:
            executor: The executor of requests to that schema.
        """
        view = copy.copy(self)
        view._executor = executor
        view._page = view.event_streams = None
        return view

    def other_application(self, headers: Headers, scope: Scope) -> ASGIApp | None:
        return self.event_streams if _negotiate(headers, scope).event_stream else None

    def error_response(
        self, status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None, scope: Scope
    ) -> PreparedResponse:
        media_type = _negotiate(dict(scope["headers"]), scope).json or JSON
        return json_response({"errors": [error]}, status, media_type, headers)

    async def handle(self, scope: Scope, headers: Headers, receive: Receive) -> PreparedResponse:
        self.check_admission(scope, headers)
        services = self.services
        accepted = _negotiate(headers, scope)
        method: str = scope["method"]
        if method not in {"GET", "POST"}:
            raise method_not_allowed("Use POST or GET for GraphQL requests.", "GET, POST")
        parameters = QueryParams(scope["query_string"]) if method == "GET" else None
        has_document = parameters is None or "query" in parameters or "documentId" in parameters
        if not has_document and self._page and accepted.html:
            return page_response(self._page)
        if accepted.json is None:
            raise not_acceptable(f"{GRAPHQL_JSON} or {JSON}")
        media_type = accepted.json
        principal = await services.authenticator.authenticate(headers)
        context: Context | None = None
        deadline = services.deadlines.new_deadline()
        client = ClientConnection(
            receive,
            authenticate=services.authenticator.authenticate_key,
            authorization=headers.get(b"authorization"),
        )
        try:
            with client, deadline:
                request = (
                    await read_request(headers, receive, services.limits.body_bytes)
                    if parameters is None
                    else request_of_query_string(parameters)
                )
                context = services.contexts.new_context(
                    headers, principal, deadline, scope["state"]["request_id"]
                )
                context.client = client
                response = await self._executor.execute(
                    request, context, queries_only=method == "GET"
                )
                status = _status(response, media_type)
                prepared = await services.response_sender.prepare(response, status, media_type)
                if parameters is not None and response.executed and "errors" not in response.body:
                    return await self._conditional(
                        prepared, list_header(headers, scope["headers"], b"if-none-match")
                    )
                retry_seconds = _retry_seconds(response, context)
                if retry_seconds:
                    prepared.headers = retry_after(retry_seconds)
                return prepared
        except MethodNotAllowed:
            raise mutation_by_get() from None
        except TimeoutError:
            if not deadline.has_expired:
                raise
            if context is None:
                raise body_too_slow(services.deadlines.seconds) from None
            metrics.REQUESTS_REJECTED.labels("time").inc()
            error = format_timeout(services.deadlines.seconds, is_mutation=context.is_mutation)
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

    async def _conditional(
        self, response: PreparedResponse, if_none_match: bytes
    ) -> PreparedResponse:
        """Return the response to a GET request with its entity tag, or 304 without a body."""
        tag = (
            # The hash of a large body takes milliseconds.
            await asyncio.to_thread(entity_tag, response.chunks)
            if response.chunks
            else entity_tag([response.body])
        )
        return with_entity_tag(
            response,
            tag,
            if_none_match=if_none_match,
            headers=self._cache_headers,
        )

    def _log_unsendable(self, scope: Scope, error: Mapping[str, Any]) -> None:
        """Log and count a request that was executed and whose response is not sent."""
        metrics.REQUESTS_REJECTED.labels("size").inc()
        self.log_rejection(scope, 200, error["extensions"]["code"], error["message"])


def _negotiate(headers: Headers, scope: Scope) -> Accepted:
    return negotiate(list_header(headers, scope["headers"], b"accept"))


def _retry_seconds(response: ExecutionResponse, context: Context) -> int | None:
    """Return after how many seconds the client should retry the request; None or 0 if never.

    The database did not respond, or the idempotency key of a mutation is in use.
    """
    if response.is_unavailable:
        return RETRY_SECONDS
    keys = context.idempotency_keys
    return keys.retry_after_seconds if keys is not None else None


def _status(response: ExecutionResponse, media_type: str) -> int:
    if response.is_unavailable:
        return 503
    return 400 if media_type == GRAPHQL_JSON and not response.executed else 200
