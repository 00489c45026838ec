"""The cause of a rejected or failed request, for its log line.

A cause never has a value of the client, a document or a secret.
"""

import re
from asyncio import CancelledError
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from graphql import GraphQLError, GraphQLSyntaxError
from segmentql.errors import IdempotencyKeyInUse, StoreFailed, TimedOut, Unavailable

MAX_CHARACTERS: Final = 200
"""The maximum length of a reason."""

MAX_ARGUMENT_CHARACTERS: Final = 50
"""The maximum length of an argument's name in a reason."""

FAULT_CODES: Final = {"UNAVAILABLE", "TIMEOUT", "INTERNAL"}
"""The codes of errors that the client does not cause."""

KEY_IN_USE: Final = "IDEMPOTENCY_KEY_IN_USE"
"""The code of a mutation whose idempotency key is in use, in metrics and log lines. For clients its
code is UNAVAILABLE, but a client causes it, so that it is no fault."""

_DOCUMENT_CODES: Final = {
    "DOCUMENT_NOT_FOUND",
    "DOCUMENT_ID_REQUIRED",
    "PERSISTED_QUERY_NOT_SUPPORTED",
}
"""The codes of errors whose messages are constant."""

_CREDENTIALS: Final = (
    (re.compile(r"://\S*@"), "://***@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)\S+"), r"\1\2***"),
)


@dataclass(frozen=True, slots=True)
class FailureCause:
    """The cause of a rejected or failed request."""

    code: str
    """The code of the most severe error; see `recorded_code`."""
    reason: str
    """The reason of the most severe error, for operators."""
    count: int = 1
    """The number of errors of the request."""

    @property
    def is_fault(self) -> bool:
        """Whether the server, not the client, caused the failure."""
        return self.code in FAULT_CODES

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the log line."""
        count = {"errors": self.count} if self.count > 1 else {}
        return {"code": self.code, "reason": self.reason, **count}


REJECTED_MUTATIONS: ContextVar[list[FailureCause] | None] = ContextVar(
    "rejected_mutations", default=None
)
"""The causes of the current request's rejected mutations; None if they are not collected."""


def describe_error(error: BaseException) -> str:
    """Return the type and the text of an exception's first cause, without credentials."""
    root = error
    while root.__cause__ is not None and not isinstance(root.__cause__, CancelledError):
        root = root.__cause__
    text = " ".join(str(root).split())
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return truncate(f"{type(root).__name__}: {text}" if text else type(root).__name__)


def truncate(text: str) -> str:
    """Return a text with at most `MAX_CHARACTERS` characters and an ellipsis."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def recorded_code(error: GraphQLError, code: str) -> str:
    """Return the code of an error in metrics and log lines.

    Args:
        error: The error.
        code: Its `extensions.code`.
    """
    return KEY_IN_USE if isinstance(error.original_error, IdempotencyKeyInUse) else code


def cause_of(errors: Sequence[GraphQLError], codes: Sequence[str]) -> FailureCause:
    """Return the cause of a request's failure.

    Args:
        errors: The errors of the request, at least one.
        codes: The `extensions.code` of each error.
    """
    recorded = [
        (error, recorded_code(error, code)) for error, code in zip(errors, codes, strict=True)
    ]
    error, code = next((pair for pair in recorded if pair[1] in FAULT_CODES), recorded[0])
    return FailureCause(code, _reason(error), len(errors))


def _reason(error: GraphQLError) -> str:
    original = error.original_error
    if isinstance(original, Unavailable | TimedOut):
        return describe_error(original)
    if isinstance(original, StoreFailed):
        return f"{type(original).__name__}: {original.reason}"
    if original is not None and not isinstance(original, GraphQLError):
        return type(
            original
        ).__name__  # its text may have a value; the traceback is logged separately
    extensions = error.extensions or {}
    if "limit" in extensions or "needed" in extensions or extensions.get("code") in _DOCUMENT_CODES:
        return truncate(error.message)  # it has only our words, names and numbers
    if isinstance(error, GraphQLSyntaxError):
        locations = [f"{location.line}:{location.column}" for location in error.locations or ()]
        return f"syntax error at {', '.join(locations)}"
    argument = str(extensions.get("argument", ""))
    if argument and len(argument) <= MAX_ARGUMENT_CHARACTERS:
        return f"the argument {argument} is not valid"
    return "the document or its variables are not valid"
