"""Errors in the GraphQL API: their codes, their types, and how they are formatted for clients.

A rejected mutation is data: the payload's `errors` has one `MutationError` for each reason. An
invalid request or an invalid argument of a query is a GraphQL error with `extensions.code`. An
internal error is masked, logged with the id of the request, and counted.
"""

import enum
from collections.abc import Sequence
from functools import singledispatch
from typing import Any, Final

import strawberry
import structlog

from graphql import GraphQLError
from segmentql import errors, metrics
from segmentql.graphql.types.error_causes import (
    REJECTED_MUTATIONS,
    FailureCause,
    recorded_code,
)
from segmentql.graphql.types.error_texts import shorten_message
from segmentql.tables import Role
from segmentql.validators import invalid_value_message

log = structlog.get_logger(__name__)


class Code(enum.StrEnum):
    """The values of `extensions.code`."""

    BAD_REQUEST = "BAD_REQUEST"
    DOCUMENT_NOT_FOUND = "DOCUMENT_NOT_FOUND"
    DOCUMENT_ID_REQUIRED = "DOCUMENT_ID_REQUIRED"
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    FEED_RESET = "FEED_RESET"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@strawberry.enum(description="The reason why a mutation was rejected.")
class ErrorCode(enum.Enum):
    INVALID_INPUT = strawberry.enum_value(
        "INVALID_INPUT", description="A value of the input is invalid."
    )
    SEGMENT_NOT_FOUND = strawberry.enum_value(
        "SEGMENT_NOT_FOUND", description="No segment has this slug."
    )
    SEGMENT_ALREADY_EXISTS = strawberry.enum_value(
        "SEGMENT_ALREADY_EXISTS", description="Another segment has this slug."
    )
    USER_NOT_FOUND = strawberry.enum_value(
        "USER_NOT_FOUND", description="No stored user has this id or this key."
    )
    USER_ALREADY_EXISTS = strawberry.enum_value(
        "USER_ALREADY_EXISTS", description="A stored user already has this id or this key."
    )
    VERSION_CONFLICT = strawberry.enum_value(
        "VERSION_CONFLICT", description="The segment's version is not the expected version."
    )
    ROLLOUT_NOT_FOUND = strawberry.enum_value(
        "ROLLOUT_NOT_FOUND", description="The segment has no rollout."
    )
    ROLLOUT_STATE_CONFLICT = strawberry.enum_value(
        "ROLLOUT_STATE_CONFLICT", description="The rollout's status does not allow this action."
    )
    IMPORT_NOT_FOUND = strawberry.enum_value(
        "IMPORT_NOT_FOUND", description="No import has this id."
    )
    IMPORT_STATE_CONFLICT = strawberry.enum_value(
        "IMPORT_STATE_CONFLICT", description="The import's status does not allow this action."
    )
    API_KEY_NOT_FOUND = strawberry.enum_value(
        "API_KEY_NOT_FOUND", description="No API key has this id."
    )
    IDEMPOTENCY_KEY_REUSED = strawberry.enum_value(
        "IDEMPOTENCY_KEY_REUSED",
        description="The idempotency key was used with another mutation or another input.",
    )


@strawberry.interface(description="A reason why a mutation was rejected. Nothing was changed.")
class MutationError:
    code: ErrorCode = strawberry.field(description="The reason, for programs.")
    message: str = strawberry.field(description="The reason, for people.")
    path: list[str] = strawberry.field(
        description="The path of the value in the input. List positions are decimal strings."
    )


@strawberry.type(description="A value of the input is invalid.")
class InvalidInput(MutationError):
    allowed: str = strawberry.field(description="A description of the allowed values.")


@singledispatch
def as_mutation_error(reason: errors.RejectionReason) -> MutationError:
    """Return a reason as its GraphQL type. Each feature registers its own reasons."""
    raise NotImplementedError(type(reason).__name__)


@as_mutation_error.register
def _(reason: errors.InvalidInput) -> MutationError:
    return InvalidInput(
        code=ErrorCode.INVALID_INPUT,
        message=invalid_value_message(".".join(reason.path), reason.problem, reason.allowed),
        path=list(reason.path),
        allowed=reason.allowed,
    )


def mutation_errors(rejected: errors.MutationRejected) -> list[MutationError]:
    """Return the `errors` of a rejected mutation's payload; note them for the log line."""
    payload_errors = [as_mutation_error(reason) for reason in rejected.reasons]
    causes = REJECTED_MUTATIONS.get()
    if causes is not None and payload_errors:
        first = payload_errors[0]
        reason = f"{type(first).__name__}: {'.'.join(first.path)}"
        causes.append(FailureCause(str(first.code.name), reason, len(payload_errors)))
    return payload_errors


def bad_request(argument: str, problem: str, allowed: str) -> GraphQLError:
    """Return the error of an invalid argument of a query."""
    return GraphQLError(
        invalid_value_message(argument, problem, allowed),
        extensions={"code": Code.BAD_REQUEST, "argument": argument, "allowed": allowed},
    )


def limit_exceeded(argument: str, *, limit: int, value: int) -> GraphQLError:
    """Return the error of an argument, or of another quantity, that exceeds its limit."""
    return GraphQLError(
        f"{argument}: {value} exceeds the limit of {limit}",
        extensions={
            "code": Code.LIMIT_EXCEEDED,
            "argument": argument,
            "limit": limit,
            "value": value,
        },
    )


def subscription_needs_stream() -> GraphQLError:
    """Return the error of a subscription that is sent as an ordinary request."""
    return GraphQLError(
        "A subscription needs a stream: send Accept: text/event-stream, or use a WebSocket with the"
        " subprotocol graphql-transport-ws.",
        extensions={"code": Code.BAD_REQUEST},
    )


def forbidden(action: str, *, needed: Role, held: Role) -> GraphQLError:
    """Return the error of an action that the caller's role does not allow."""
    return GraphQLError(
        f"{action} requires the role {needed}, but the API key has the role {held}.",
        extensions={"code": Code.FORBIDDEN, "needed": needed, "role": held},
    )


def format_error(error: GraphQLError, *, executed: bool, request_id: str) -> dict[str, Any]:
    """Return a GraphQL error as the client gets it, count it, and log it if it is internal.

    Args:
        error: The error.
        executed: Whether the operation was executed; False if the document was rejected.
        request_id: The id of the request, for internal errors.
    """
    formatted: dict[str, Any] = dict(error.formatted)
    cause = error.original_error
    if isinstance(cause, errors.OutcomeUnknown):
        formatted["message"] = (
            "The connection to the database was lost during the commit:"
            " the mutation was applied completely or not at all. Read the data to find out."
        )
        extensions: dict[str, Any] = {"code": Code.UNAVAILABLE, "outcomeUnknown": True}
    elif isinstance(cause, errors.Unavailable):
        formatted["message"] = f"The database is unavailable; {_effect_message(error)}."
        extensions = {"code": Code.UNAVAILABLE}
    elif isinstance(cause, errors.IdempotencyKeyInUse):
        formatted["message"] = (
            "A mutation with the same idempotency key is running; nothing was changed. Retry the"
            " request to get its result."
        )
        extensions = {"code": Code.UNAVAILABLE}
    elif isinstance(cause, errors.StoreFailed):
        formatted["message"] = f"The object store is unavailable; {_effect_message(error)}."
        extensions = {"code": Code.UNAVAILABLE}
    elif isinstance(cause, errors.TimedOut):
        formatted["message"] = f"The database query timed out; {_effect_message(error)}."
        extensions = {"code": Code.TIMEOUT}
    elif isinstance(cause, errors.Unauthenticated):
        formatted["message"] = "The API key is not valid any more."
        extensions = {"code": Code.UNAUTHENTICATED}
    elif not executed or "code" in (error.extensions or {}):
        extensions = {"code": Code.BAD_REQUEST, **(error.extensions or {})}
    else:
        log.error("request_failed", request_id=request_id, path=error.path, exc_info=cause or error)
        formatted["message"] = "An internal error occurred."
        extensions = {"code": Code.INTERNAL, "requestId": request_id}
    formatted["message"] = shorten_message(formatted["message"])
    formatted["extensions"] = extensions
    metrics.ERRORS.labels(recorded_code(error, extensions["code"])).inc()
    return formatted


def _effect_message(error: GraphQLError) -> str:
    # Below a root field of a mutation the change is committed, and only reading its result failed.
    return "the field was not read" if len(error.path or ()) > 1 else "nothing was changed"


def format_internal_error(error: Exception, *, request_id: str) -> dict[str, Any]:
    """Return an exception that was raised outside the execution as the client gets it."""
    return format_error(
        GraphQLError(str(error), original_error=error), executed=True, request_id=request_id
    )


def format_timeout(seconds: float, *, is_mutation: bool) -> dict[str, Any]:
    """Return the error of an operation that was cancelled at its time limit of `seconds`."""
    metrics.ERRORS.labels(Code.TIMEOUT).inc()
    message = f"The operation took longer than {seconds:g} s and was cancelled."
    return _cancelled(message, {"code": Code.TIMEOUT, "limit": seconds}, is_mutation=is_mutation)


def format_stopped(*, is_mutation: bool) -> dict[str, Any]:
    """Return the error of an operation that was cancelled because the process shuts down."""
    metrics.ERRORS.labels(Code.UNAVAILABLE).inc()
    message = "The server process shuts down. The operation was cancelled."
    return _cancelled(message, {"code": Code.UNAVAILABLE}, is_mutation=is_mutation)


def _cancelled(message: str, extensions: dict[str, Any], *, is_mutation: bool) -> dict[str, Any]:
    if is_mutation:
        message += (
            " Each of its changes was applied completely or not at all. Read the data to find out."
        )
        extensions["outcomeUnknown"] = True
    return {"message": message, "extensions": extensions}


_ALL_FIELDS_EXECUTED: Final = (
    " All fields of the mutation were executed. Read the data to see its changes."
)


def format_response_too_large(
    error: GraphQLError, *, is_mutation: bool, is_complete: bool
) -> dict[str, Any]:
    """Return the error of a response that exceeds its limit as the client gets it.

    Args:
        error: The error.
        is_mutation: Whether the operation is a mutation.
        is_complete: Whether all fields were executed; False if the execution was stopped.
    """
    metrics.ERRORS.labels(Code.LIMIT_EXCEEDED).inc()
    message = error.message
    extensions: dict[str, Any] = dict(error.extensions or {})
    if is_mutation:
        message += (
            _ALL_FIELDS_EXECUTED
            if is_complete
            # graphql-core may stop at the name of a field, before it executes the field.
            else " The mutation was stopped at the field that made the response too large. The"
            " fields before it were executed, and perhaps this field. Read the data to see the"
            " changes."
        )
        extensions["outcomeUnknown"] = True
    return {"message": message, "extensions": extensions}


def format_unread_response(*, is_mutation: bool) -> dict[str, Any]:
    """Return the error of a large response that is dropped because too many are unread."""
    metrics.ERRORS.labels(Code.UNAVAILABLE).inc()
    message = "Too many large responses are waiting for clients that do not read them."
    extensions: dict[str, Any] = {"code": Code.UNAVAILABLE}
    if is_mutation:
        message += _ALL_FIELDS_EXECUTED
        extensions["outcomeUnknown"] = True
    return {"message": message, "extensions": extensions}


def format_errors(
    graphql_errors: Sequence[GraphQLError], *, executed: bool, request_id: str
) -> list[dict[str, Any]]:
    """Return GraphQL errors as the client gets them; see `format_error`."""
    return [
        format_error(error, executed=executed, request_id=request_id) for error in graphql_errors
    ]
