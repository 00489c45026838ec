"""The parsing of GraphQL requests from an HTTP body or query string."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson
from starlette.types import Receive

from segmentql.adapters.http import BodyTooLarge, ClientDisconnected, read_body
from segmentql.graphql.execution.request import Request
from segmentql.graphql.http.http_errors import HttpRequestError, unsupported_encoding
from segmentql.graphql.types.errors import Code

Headers: TypeAlias = Mapping[bytes, bytes]
"""The headers of a request by their names in lower case."""


async def read_request(headers: Headers, receive: Receive, max_body_bytes: int) -> Request:
    """Read and parse the body of a POST request.

    Raises:
        HttpRequestError: The body is not a GraphQL request in JSON, or is too large.
    """
    return request_of_json(await read_json(headers, receive, max_body_bytes))


async def read_json(headers: Headers, receive: Receive, max_body_bytes: int) -> Any:
    """Read and parse the body of a POST request.

    Raises:
        HttpRequestError: The body is not JSON, or is too large.
    """
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type != b"application/json":
        raise HttpRequestError(415, "The content type of the body must be application/json.")
    encoding = headers.get(b"content-encoding", b"")
    if encoding and encoding.strip().lower() not in {b"", b"identity"}:
        raise unsupported_encoding()
    content_length = headers.get(b"content-length", b"0")
    try:
        body = await read_body(receive, declared=int(content_length), limit=max_body_bytes)
        return orjson.loads(body)
    except BodyTooLarge as too_large:
        raise HttpRequestError(
            413,
            f"The body is larger than {too_large.limit} bytes.",
            Code.LIMIT_EXCEEDED,
            limit=too_large.limit,
            value=too_large.size,
        ) from None
    except (ClientDisconnected, ValueError) as error:
        raise HttpRequestError(400, f"The body is not valid JSON: {error}.") from None


def request_of_query_string(parameters: Mapping[str, str]) -> Request:
    """Return the GraphQL request in the query string of a GET request.

    Raises:
        HttpRequestError: The parameters are not a GraphQL request.
    """

    def parse_json(name: str) -> Any:
        try:
            return orjson.loads(parameters[name]) if parameters.get(name) else None
        except orjson.JSONDecodeError as error:
            raise HttpRequestError(400, f"`{name}` is not valid JSON: {error}.") from None

    return request_of_json(
        {
            "query": parameters.get("query"),
            "operationName": parameters.get("operationName"),
            "variables": parse_json("variables"),
            "extensions": parse_json("extensions"),
        }
    )


def request_of_json(body: Any) -> Request:
    """Return the GraphQL request in a JSON value.

    Raises:
        HttpRequestError: The value is not a GraphQL request.
    """
    if not isinstance(body, dict):
        raise HttpRequestError(400, "The body must be a JSON object with `query`.")
    query = body.get("query")
    if not isinstance(query, str) or not query:
        raise HttpRequestError(400, "`query` must be a non-empty string.")
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
    return Request(query, variables, operation_name)


def accept_header(headers: Headers, header_lines: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the value of the `Accept` header; several lines are joined into one list."""
    if len(headers) == len(header_lines):  # no header has several lines
        return headers.get(b"accept", b"")
    return b",".join(value for name, value in header_lines if name == b"accept")
