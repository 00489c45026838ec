"""The failures of evaluations, and their codes in OFREP."""

import enum
from typing import Final


class ErrorCode(enum.StrEnum):
    """The values of `errorCode`."""

    PARSE_ERROR = "PARSE_ERROR"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    GENERAL = "GENERAL"


_STATUSES: Final = {ErrorCode.FLAG_NOT_FOUND: 404, ErrorCode.GENERAL: 500}


class EvaluationFailure(Exception):
    """An evaluation has no result."""

    def __init__(self, code: ErrorCode, details: str, reason: str) -> None:
        """Create the failure.

        Args:
            code: The `errorCode` of the response.
            details: The `errorDetails` of the response.
            reason: The reason in the log line, without values of the client.
        """
        super().__init__(details)
        self.code = code
        self.details = details
        self.reason = reason

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return _STATUSES.get(self.code, 400)


def flag_not_found() -> EvaluationFailure:
    """Return the failure of a flag whose slug no segment has."""
    return EvaluationFailure(
        ErrorCode.FLAG_NOT_FOUND,
        "No segment has this slug.",
        "no segment has the requested slug",
    )
