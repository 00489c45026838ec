"""The messages of the protocol graphql-transport-ws that a client sends.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import orjson

from segmentql.graphql.execution.request import Request
from segmentql.graphql.http.http_errors import HttpRequestError
from segmentql.graphql.http.request_parsing import request_of_json
from segmentql.graphql.types.error_causes import FAULT_CODES

SUBPROTOCOL: Final = "graphql-transport-ws"

MAX_ID_CHARACTERS: Final = 128
"""The maximum length of an operation's id, which each message of the operation repeats."""


class CloseCode(IntEnum):
    """The codes with which the server closes a WebSocket."""

    POLICY_VIOLATION = 1008
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INIT_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INIT_REQUESTS = 4429


class SocketRejected(Exception):
    """The server must close the socket with a code and a reason."""

    def __init__(
        self, code: CloseCode, reason: str, *, is_fault: bool = False, log_reason: str = ""
    ) -> None:
        """Create the error.

        Args:
            code: The close code.
            reason: The reason for the client.
            is_fault: Whether the server causes it.
            log_reason: The reason in the log line; if empty, `reason`.
        """
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.is_fault = is_fault
        self.log_reason = log_reason or reason

    @classmethod
    def from_http(cls, code: CloseCode, rejection: HttpRequestError) -> "SocketRejected":
        """Return the error of a socket for the error of a request."""
        is_fault = rejection.extensions["code"] in FAULT_CODES
        return cls(code, rejection.message, is_fault=is_fault, log_reason=rejection.reason)


class ProtocolViolation(SocketRejected):
    """The client violated the protocol (4400, 4401, 4409 or 4429)."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)


@dataclass(frozen=True, slots=True)
class ConnectionInit:
    """The first message of a client, which may have its API key."""

    authorization: bytes | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The start of an operation."""

    id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Complete:
    """The end of an operation."""

    id: str


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, which the server answers."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or a heartbeat of the client."""


ClientMessage: TypeAlias = ConnectionInit | Subscribe | Complete | Ping | Pong


def parse_message(text: str | None) -> ClientMessage:
    """Return a message of a client.

    Args:
        text: The text of the WebSocket message; None if it is binary.

    Raises:
        ProtocolViolation: It is not a message of the protocol (4400).
    """
    if text is None:
        raise _invalid("Messages must be text, not binary.")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _invalid("The message is not valid JSON.") from None
    if not isinstance(message, dict):
        raise _invalid("The message must be a JSON object.")
    payload = message.get("payload")
    match message.get("type"):
        case "connection_init":
            return ConnectionInit(_authorization(payload))
        case "subscribe":
            try:
                return Subscribe(_id(message), request_of_json(payload))
            except HttpRequestError as error:
                raise _invalid(error.message) from None
        case "complete":
            return Complete(_id(message))
        case "ping":
            return Ping()
        case "pong":
            return Pong()
    raise _invalid("The type of the message is not known.")


def _id(message: dict[str, Any]) -> str:
    value = message.get("id")
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_CHARACTERS:
        raise _invalid(f"The id must be a string of 1 to {MAX_ID_CHARACTERS} characters.")
    return value


def _authorization(payload: Any) -> bytes | None:
    """Return the authorization in the payload of `connection_init`, in the form of the header."""
    if not isinstance(payload, dict | None):
        raise _invalid("The payload of connection_init must be an object or null.")
    value = (payload or {}).get("authorization", (payload or {}).get("Authorization"))
    if not isinstance(value, str | None):
        raise _invalid("The authorization must be a string.")
    return None if value is None else value.encode()


def _invalid(reason: str) -> ProtocolViolation:
    return ProtocolViolation(CloseCode.BAD_REQUEST, reason)
