"""A client of the API, for commands that need no access to the database and the object store."""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final
from urllib.parse import urlsplit

import click
import orjson

from segmentql.document_ids import format_document_id, hash_document
from segmentql.errors import SettingsError
from segmentql.setting_types import BEARER_FORM
from segmentql.settings import CLIENT_VARIABLES, PREFIX, raw_value

TIMEOUT_SECONDS: Final = 60
"""The maximum time between two bytes of a response."""

CHUNK_BYTES: Final = 256 * 1024
UNAVAILABLE_CODES: Final = frozenset({"UNAVAILABLE", "RATE_LIMITED", "TIMEOUT"})
"""The codes of GraphQL errors that a later request may not get."""

VALUE_CODES: Final = frozenset({"BAD_REQUEST", "LIMIT_EXCEEDED"})
"""The codes of GraphQL errors that name an invalid argument. Each variable of the commands has the
name of its argument."""

SERVER_ERROR: Final = 500

url_option = click.option(
    "--url",
    metavar="URL",
    help="The address of the API.  [default: SEGMENTQL_URL, or"
    f" {CLIENT_VARIABLES[PREFIX + 'URL']}]",
)


class Unavailable(Exception):
    """A server does not respond, or rejects requests for a while. The message is a sentence."""


class Rejected(Exception):
    """A mutation was rejected."""

    def __init__(self, errors: list[Any]) -> None:
        """Create the exception from the mutation's `errors`."""
        super().__init__(" ".join(error["message"] for error in errors))
        self.codes = [error["code"] for error in errors]


class InputRejected(click.ClickException):
    """The API rejected the values of the command line."""

    exit_code = 2


class RequestRejected(click.ClickException):
    """The API rejected a request."""

    def __init__(self, message: str, code: str | None) -> None:
        """Create the exception from a GraphQL error.

        Args:
            message: The message for the user.
            code: `extensions.code` of the error, such as `FORBIDDEN`.
        """
        super().__init__(message)
        self.code = code


class ValueRejected(RequestRejected):
    """The API rejected a request because a value of the command line is invalid."""

    exit_code = 2


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, because it would send the API key to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


class ApiClient:
    """A client of one API. A request that gets no response raises `Unavailable`."""

    def __init__(self, url: str, api_key: str | None) -> None:
        """Create the client.

        Args:
            url: The address of the API, with or without `/graphql`.
            api_key: The API key; None for an API without authentication.
        """
        self._url = url.rstrip("/").removesuffix("/graphql") + "/graphql"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._sends_ids = False

    def query(self, document: str, **variables: object) -> Any:
        """Return the data of an operation.

        Raises:
            Unavailable: the API does not respond, or is overloaded.
            RequestRejected: the API rejected the request.
            click.ClickException: the server is not the API.
        """
        if not self._sends_ids:
            try:
                return self._send(variables, query=document)
            except RequestRejected as rejected:
                if rejected.code != "DOCUMENT_ID_REQUIRED":
                    raise
            self._sends_ids = True  # an earlier version of the API does not know `documentId`
        document_id = format_document_id(hash_document(document))
        return self._send(variables, documentId=document_id)

    def _send(self, variables: Mapping[str, object], **document: str) -> Any:
        body = orjson.dumps({**document, "variables": variables})
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url, data=body, headers=self._headers, method="POST"
        )
        try:
            with _opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, _content(error)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self._url} does not respond: {describe(error)}.") from None
        return self._data(status, content, variables)

    def _data(self, status: int, content: bytes, variables: Mapping[str, object]) -> Any:
        try:
            body = orjson.loads(content)
            data, errors = body.get("data"), body.get("errors") or []
        except (orjson.JSONDecodeError, AttributeError):
            if status >= SERVER_ERROR:
                raise Unavailable(f"{self._url} responds with HTTP {status}.") from None
            raise click.ClickException(
                f"{self._url} is not the API of SegmentQL: it responds with HTTP {status} and no"
                " GraphQL. Set --url or SEGMENTQL_URL."
            ) from None
        for error in errors:
            extensions = error.get("extensions", {})
            code = extensions.get("code")
            if code in UNAVAILABLE_CODES:
                raise Unavailable(error["message"])
            advice = " Set SEGMENTQL_API_KEY." if code == "UNAUTHENTICATED" else ""
            argument = extensions.get("argument", "").split(".")[0].removeprefix("$")
            is_value = code in VALUE_CODES and argument in variables
            rejected = ValueRejected if is_value else RequestRejected
            raise rejected(error["message"] + advice, code)
        return data

    def mutate(self, document: str, **fields: object) -> Any:
        """Return the payload of a mutation with one field and the variable `input`.

        Raises:
            Rejected: the mutation was rejected.
            Unavailable: the API does not respond, or is overloaded.
            click.ClickException: the API rejected the request.
        """
        ((payload,),) = [self.query(document, input=fields).values()]
        if payload["errors"]:
            raise Rejected(payload["errors"])
        return payload


def open_client(url: str | None) -> ApiClient:
    """Return a client with the key of the settings, which an argument would show to other users.

    Raises:
        click.ClickException: the address or the key is not valid.
    """
    try:
        url = url or raw_value("url") or CLIENT_VARIABLES[f"{PREFIX}URL"]
        api_key = raw_value("api_key")
    except SettingsError as error:  # .env cannot be read
        raise click.ClickException(str(error)) from None
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment or parts.username:
        raise click.BadParameter(
            "must be like http://127.0.0.1:8080 or https://segments.example.com/segmentql",
            param_hint="'--url' (SEGMENTQL_URL)",
        )
    if api_key and not re.fullmatch(BEARER_FORM, api_key):
        raise click.ClickException("SEGMENTQL_API_KEY has a character that no API key has.")
    return ApiClient(url, api_key)


def upload(
    link: Mapping[str, Any], file: IO[bytes], size_bytes: int, on_chunk: Callable[[int], None]
) -> None:
    """Upload a file as `upload` of `createImport` says.

    Args:
        link: `url`, `method` and `headers` of the request.
        file: The file. All its bytes are sent.
        size_bytes: The size of the file.
        on_chunk: A function that is called with the number of bytes of each sent chunk.

    Raises:
        Unavailable: the object store does not respond, or cannot store the file now.
        click.ClickException: the object store rejected the file, or the file became shorter.
    """
    headers = {header["name"]: header["value"] for header in link["headers"]}
    request = urllib.request.Request(  # noqa: S310 - a link of the API
        link["url"],
        data=_chunks(file, size_bytes, on_chunk),
        headers={"Content-Type": "application/octet-stream", **headers},
        method=link["method"],
    )
    with _store_response(request):
        pass


def download(url: str, write: Callable[[bytes], None]) -> None:
    """Download a file from the object store.

    Raises:
        Unavailable: the object store does not respond, or the connection was lost.
        click.ClickException: the object store rejected the request.
    """
    with _store_response(urllib.request.Request(url)) as response:  # noqa: S310 - a link of the API
        while chunk := _read(response):
            write(chunk)


def _store_response(request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = _opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        message = f"The object store {request.host} responds with HTTP {error.code}."
        if error.code >= SERVER_ERROR:
            raise Unavailable(message) from None
        raise click.ClickException(message) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"The object store {request.host} does not respond: {describe(error)}."
        ) from None
    return response


def _chunks(file: IO[bytes], size_bytes: int, on_chunk: Callable[[int], None]) -> Iterator[bytes]:
    file.seek(0)
    remaining = size_bytes
    while remaining:
        chunk = file.read(min(CHUNK_BYTES, remaining))
        if not chunk:
            raise click.ClickException("The file became shorter while it was read.")
        yield chunk
        remaining -= len(chunk)
        on_chunk(len(chunk))


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"The download was cut off: {describe(error)}.") from None


def _content(error: urllib.error.HTTPError) -> bytes:
    with error:
        try:
            return error.read()
        except (OSError, http.client.HTTPException):
            return b""


def describe(error: BaseException) -> str:
    """Return the reason of a network error without its class."""
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__).rstrip(".")
