"""Why a request was rejected or failed, for its log line: no value, no document, no secret."""

import re
from asyncio import CancelledError
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from graphql import GraphQLError, GraphQLSyntaxError
from segmentql.errors import TimedOut, Unavailable

MAX_CHARACTERS: Final = 200
MAX_ARGUMENT_CHARACTERS: Final = 50

FAULTS: Final = {"UNAVAILABLE", "TIMEOUT", "INTERNAL"}
"""The codes of what is no mistake of the client."""

_CREDENTIALS: Final = (
    (re.compile(r"://\S*@"), "://***@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)\S+"), r"\1\2***"),
)


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Why a request was rejected or failed."""

    code: str
    reason: str
    count: int = 1
    """The number of errors of the request; `code` and `reason` are those of the gravest one."""

    @property
    def is_fault(self) -> bool:
        """Whether the service, not the client, has to do something about it."""
        return self.code in FAULTS

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the log line."""
        more = {"errors": self.count} if self.count > 1 else {}
        return {"code": self.code, "reason": self.reason, **more}


REJECTED_MUTATIONS: ContextVar[list[FailureCause] | None] = ContextVar(
    "rejected_changes", default=None
)
"""Collects why changes of the current request were rejected; None: nothing collects them."""


def describe_fault(fault: BaseException) -> str:
    """Return the type and the text of the exception that an exception was raised from."""
    root = fault
    while root.__cause__ is not None and not isinstance(root.__cause__, CancelledError):
        root = root.__cause__
    text = " ".join(str(root).split())
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    return shorten(f"{type(root).__name__}: {text}" if text else type(root).__name__)


def shorten(text: str) -> str:
    """Cut a text to what a log line may have of it."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def cause_of(errors: Sequence[GraphQLError], codes: Sequence[str]) -> FailureCause:
    """Return the cause of a request's failure.

    Args:
        errors: The errors of the request, at least one.
        codes: The `extensions.code` that the client gets for each of them.
    """
    error, code = next(
        ((error, code) for error, code in zip(errors, codes, strict=True) if code in FAULTS),
        (errors[0], codes[0]),
    )
    return FailureCause(code, _reason(error), len(errors))


def _reason(error: GraphQLError) -> str:
    original = error.original_error
    if isinstance(original, Unavailable | TimedOut):
        return describe_fault(original)
    if original is not None and not isinstance(original, GraphQLError):
        return type(original).__name__  # its text may hold a value; the traceback is logged apart
    extensions = error.extensions or {}
    if "limit" in extensions or "needed" in extensions:
        return shorten(error.message)  # of our own words, names and numbers
    if isinstance(error, GraphQLSyntaxError):
        places = [f"{place.line}:{place.column}" for place in error.locations or ()]
        return f"syntax error at {', '.join(places)}"
    argument = str(extensions.get("argument", ""))
    if argument and len(argument) <= MAX_ARGUMENT_CHARACTERS:
        return f"the argument {argument} is not valid"
    return "the document or its variables are not valid"
