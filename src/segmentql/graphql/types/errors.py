"""How failures are told to a client.

A refused change is data: `errors` of the payload, one type a reason (`MutationError`). What is
wrong with the request, or with a query's argument, is a GraphQL error with `extensions.code`. A
fault of ours is masked, logged with the request's id, and counted.
"""

import enum
from collections.abc import Sequence
from functools import singledispatch
from typing import Any, Final

import strawberry
import structlog

from graphql import GraphQLError
from segmentql import errors, metrics
from segmentql.graphql.types.error_causes import REJECTED_MUTATIONS, FailureCause
from segmentql.tables import Role

log = structlog.get_logger(__name__)


class Code(enum.StrEnum):
    """Values of `extensions.code`."""

    BAD_REQUEST = "BAD_REQUEST"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@strawberry.enum(description="What kind of reason it was that refused a change.")
class ErrorCode(enum.Enum):
    INVALID_INPUT = strawberry.enum_value(
        "INVALID_INPUT", description="A value of the input breaks its rule."
    )
    SEGMENT_NOT_FOUND = strawberry.enum_value(
        "SEGMENT_NOT_FOUND", description="No segment bears this slug now."
    )
    SEGMENT_ALREADY_EXISTS = strawberry.enum_value(
        "SEGMENT_ALREADY_EXISTS", description="Another segment bears this slug."
    )
    USER_NOT_FOUND = strawberry.enum_value("USER_NOT_FOUND", description="The user is not stored.")
    USER_ALREADY_EXISTS = strawberry.enum_value(
        "USER_ALREADY_EXISTS", description="The user is stored already."
    )
    VERSION_CONFLICT = strawberry.enum_value(
        "VERSION_CONFLICT", description="The segment was changed since the version you expected."
    )
    ROLLOUT_NOT_FOUND = strawberry.enum_value(
        "ROLLOUT_NOT_FOUND", description="The segment has no rollout."
    )
    ROLLOUT_STATE_CONFLICT = strawberry.enum_value(
        "ROLLOUT_STATE_CONFLICT", description="The rollout's status does not allow this."
    )
    API_KEY_NOT_FOUND = strawberry.enum_value(
        "API_KEY_NOT_FOUND", description="No key has this id."
    )


@strawberry.interface(description="Why a change was refused. Nothing was changed.")
class MutationError:
    code: ErrorCode = strawberry.field(description="The kind of reason, for programs.")
    message: str = strawberry.field(description="What was wrong, for people.")
    path: list[str] = strawberry.field(
        description="Where in the input; positions in lists are decimal strings."
    )


@strawberry.type(description="A value of the input breaks its rule.")
class InvalidInput(MutationError):
    allowed: str = strawberry.field(description="What would be right.")


@singledispatch
def as_mutation_error(refusal: errors.RejectionReason) -> MutationError:
    """Tell one reason as its GraphQL type; each feature registers its own reasons."""
    raise NotImplementedError(type(refusal).__name__)


@as_mutation_error.register
def _(refusal: errors.InvalidInput) -> MutationError:
    return InvalidInput(
        code=ErrorCode.INVALID_INPUT,
        message=f"{'.'.join(refusal.path)}: {refusal.problem}; allowed: {refusal.allowed}",
        path=list(refusal.path),
        allowed=refusal.allowed,
    )


def mutation_errors(rejected: errors.MutationRejected) -> list[MutationError]:
    """Return what a payload says of a rejected change, and note it for the request's log line."""
    found = [as_mutation_error(refusal) for refusal in rejected.reasons]
    causes = REJECTED_MUTATIONS.get()
    if causes is not None and found:
        reason = f"{type(found[0]).__name__}: {'.'.join(found[0].path)}"
        causes.append(FailureCause(str(found[0].code.name), reason, len(found)))
    return found


MAX_ECHO_CHARACTERS: Final = 40
"""How much of a value an error message repeats."""

MAX_MESSAGE_CHARACTERS: Final = 1000
"""Of one error message. Messages of graphql-core repeat what the client sent."""


def shortened(text: str) -> str:
    """Return a value for an error message: its beginning and its length if it is long."""
    if len(text) <= MAX_ECHO_CHARACTERS:
        return text
    return f"{text[:MAX_ECHO_CHARACTERS]}... ({len(text)} characters)"


def bounded_message(message: str) -> str:
    """Return an error message without its middle if it is long."""
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    half = MAX_MESSAGE_CHARACTERS // 2
    left_out = len(message) - 2 * half
    return f"{message[:half]}... ({left_out} characters left out) ...{message[-half:]}"


def bad_request(argument: str, problem: str, allowed: str) -> GraphQLError:
    """Say that an argument of a query breaks its rule."""
    return GraphQLError(
        f"{argument}: {problem}; allowed: {allowed}",
        extensions={"code": Code.BAD_REQUEST, "argument": argument, "allowed": allowed},
    )


def limit_exceeded(argument: str, *, limit: int, value: int) -> GraphQLError:
    """Say that something is larger than the service takes."""
    return GraphQLError(
        f"{argument}: {value} is more than {limit}",
        extensions={
            "code": Code.LIMIT_EXCEEDED,
            "argument": argument,
            "limit": limit,
            "value": value,
        },
    )


def forbidden(what: str, *, needed: Role, held: Role) -> GraphQLError:
    """Say that the caller's role does not allow something."""
    return GraphQLError(
        f"{what} needs the role {needed}; yours is {held}",
        extensions={"code": Code.FORBIDDEN, "needed": needed, "role": held},
    )


def format_error(error: GraphQLError, *, executed: bool, request_id: str) -> dict[str, Any]:
    """Write one GraphQL error as clients see it; `executed` is false for a refused document."""
    formatted: dict[str, Any] = dict(error.formatted)
    cause = error.original_error
    if isinstance(cause, errors.OutcomeUnknown):
        formatted["message"] = (
            "The database was lost while the change was being committed:"
            " it was made whole or not at all. Read to see which."
        )
        extensions: dict[str, Any] = {"code": Code.UNAVAILABLE, "outcomeUnknown": True}
    elif isinstance(cause, errors.Unavailable):
        formatted["message"] = f"The database is not available now; {_effect_message(error)}."
        extensions = {"code": Code.UNAVAILABLE}
    elif isinstance(cause, errors.TimedOut):
        formatted["message"] = f"The database took too long; {_effect_message(error)}."
        extensions = {"code": Code.TIMEOUT}
    elif not executed or "code" in (error.extensions or {}):
        extensions = {"code": Code.BAD_REQUEST, **(error.extensions or {})}
    else:
        log.error("request_failed", request_id=request_id, path=error.path, exc_info=cause or error)
        formatted["message"] = "Something went wrong on our side."
        extensions = {"code": Code.INTERNAL, "requestId": request_id}
    formatted["message"] = bounded_message(formatted["message"])
    formatted["extensions"] = extensions
    metrics.ERRORS.labels(extensions["code"]).inc()
    return formatted


def _effect_message(error: GraphQLError) -> str:
    # Below a mutation's own field the change is committed, and only reading it back failed.
    return "this was not read" if len(error.path or ()) > 1 else "nothing was changed"


def format_fault(fault: Exception, *, request_id: str) -> dict[str, Any]:
    """Write a fault that came to pass outside any field."""
    error = GraphQLError(str(fault), original_error=fault)
    return format_error(error, executed=True, request_id=request_id)


def format_timeout(seconds: float, *, changes: bool) -> dict[str, Any]:
    """Write that an operation was ended because it took too long."""
    metrics.ERRORS.labels(Code.TIMEOUT).inc()
    told = f"The operation took longer than {seconds:g} s and was ended"
    extensions: dict[str, Any] = {"code": Code.TIMEOUT, "limit": seconds}
    if changes:
        told += ": each of its changes was made whole or not at all. Read to see which"
        extensions["outcomeUnknown"] = True
    return {"message": f"{told}.", "extensions": extensions}


def format_response_too_large(error: GraphQLError, *, changes: bool) -> dict[str, Any]:
    """Format the error of a response that is larger than the service sends."""
    metrics.ERRORS.labels(Code.LIMIT_EXCEEDED).inc()
    message = error.message
    extensions: dict[str, Any] = dict(error.extensions or {})
    if changes:
        message += (
            " The mutation was executed up to and including the field that made the response too"
            " large, and its changes are kept. Read to see them."
        )
        extensions["outcomeUnknown"] = True
    return {"message": message, "extensions": extensions}


def format_unsent_response(*, changes: bool) -> dict[str, Any]:
    """Format the error of a large response for which clients that do not read leave no room."""
    metrics.ERRORS.labels(Code.UNAVAILABLE).inc()
    message = "Too many large responses wait for clients that do not read them."
    extensions: dict[str, Any] = {"code": Code.UNAVAILABLE}
    if changes:
        message += " The mutation was executed. Read to see what it changed."
        extensions["outcomeUnknown"] = True
    return {"message": message, "extensions": extensions}


def format_errors(
    found: Sequence[GraphQLError], *, executed: bool, request_id: str
) -> list[dict[str, Any]]:
    return [format_error(error, executed=executed, request_id=request_id) for error in found]
