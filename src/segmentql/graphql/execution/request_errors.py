"""The errors of a request and their causes: what the client gets, and what the log line has."""

from collections.abc import Sequence
from typing import Any

from graphql import GraphQLError
from segmentql.graphql.context import Context
from segmentql.graphql.types.error_causes import FailureCause, cause_of
from segmentql.graphql.types.errors import Code, format_errors


def format_request_errors(
    errors: Sequence[GraphQLError], context: Context, *, executed: bool
) -> list[dict[str, Any]]:
    """Return the errors as the client gets them; note their cause for the log line."""
    formatted = format_errors(errors, executed=executed, request_id=context.request_id)
    if errors:
        context.cause = cause_of(errors, [error["extensions"]["code"] for error in formatted])
    return formatted


def cause_of_cancellation(context: Context) -> FailureCause:
    """Return the cause of a request that was cancelled."""
    if context.deadline and context.deadline.has_expired:
        limit = "SEGMENTQL_REQUEST_TIMEOUT_SECONDS"
        return FailureCause(Code.TIMEOUT, f"the request took longer than {limit}")
    return FailureCause("CANCELLED", "the server is shutting down, or the client has disconnected")
