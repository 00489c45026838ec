"""The parsing of GraphQL requests from an HTTP body or query string."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson
from starlette.types import Receive

from segmentql.adapters.http import BodyTooLarge, ClientDisconnected, read_body
from segmentql.document_ids import ALLOWED_ID, hash_document, parse_document_id
from segmentql.graphql.execution.request import Request
from segmentql.graphql.http.http_errors import HttpRequestError, unsupported_encoding
from segmentql.graphql.types.errors import Code

Headers: TypeAlias = Mapping[bytes, bytes]
"""The headers of a request by their names in lower case."""

_DOCUMENT_REQUIRED: Final = "The request must have `query`, a non-empty string, or `documentId`."


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
            "documentId": parameters.get("documentId"),
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
        raise HttpRequestError(400, "The body must be a JSON object with `query` or `documentId`.")
    query = body.get("query")
    document_id = body.get("documentId")
    extensions = body.get("extensions")
    if not isinstance(extensions, dict | None):
        raise HttpRequestError(400, "`extensions` must be an object or null.")
    is_id_only = document_id is not None or (extensions or {}).get("persistedQuery") is not None
    if not (isinstance(query, str) and query) and not (query is None and is_id_only):
        raise HttpRequestError(400, _DOCUMENT_REQUIRED)
    operation_name = body.get("operationName")
    if operation_name == "":
        operation_name = None
    if not isinstance(operation_name, str | None):
        raise HttpRequestError(400, "`operationName` must be a string or null.")
    variables = body.get("variables")
    if not isinstance(variables, dict | None):
        raise HttpRequestError(400, "`variables` must be an object or null.")
    if document_id is None:
        return Request(query, variables, operation_name)
    return Request(query, variables, operation_name, _document_id(document_id, query))


def _document_id(value: Any, query: str | None) -> bytes:
    """Return the hash in `documentId`, which must be that of `query` if the request has both."""
    document_id = parse_document_id(value) if isinstance(value, str) else None
    if document_id is None:
        raise _invalid_document_id(f"`documentId` must be {ALLOWED_ID}.")
    if query is not None and hash_document(query) != document_id:
        raise _invalid_document_id("`documentId` is not the SHA-256 hash of `query`.")
    return document_id


def _invalid_document_id(message: str) -> HttpRequestError:
    return HttpRequestError(400, message, argument="documentId", allowed=ALLOWED_ID)


def list_header(
    headers: Headers, header_lines: Sequence[tuple[bytes, bytes]], name: bytes
) -> bytes:
    """Return the value of a header that is a list; several lines are joined into one list.

    Args:
        headers: The headers, of which each has one of its lines.
        header_lines: All lines of the headers.
        name: The name of the header, in lower case.
    """
    if len(headers) == len(header_lines):  # no header has several lines
        return headers.get(name, b"")
    return b",".join(value for line_name, value in header_lines if line_name == name)
