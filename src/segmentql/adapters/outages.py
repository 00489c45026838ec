"""Log lines of outages: PostgreSQL or the object store cannot be used.

Such a line has the reason and no traceback, because the code is not the cause.
"""

import logging
from typing import Final

import structlog

from segmentql.adapters.connections import describe_error
from segmentql.errors import StoreUnavailable, Unavailable

_JOBS_LOGGER: Final = "dramatiq.worker.WorkerThread"


def outage_reason(error: BaseException | None) -> str | None:
    """Return the reason of an outage in one line, or None if the error has another cause."""
    if isinstance(error, StoreUnavailable):
        return error.reason
    return describe_error(error) if isinstance(error, Unavailable) else None


def log_error(
    log: structlog.typing.FilteringBoundLogger, event: str, error: Exception, **fields: object
) -> None:
    """Log an outage as a warning with its reason, and another error with its traceback."""
    if reason := outage_reason(error):
        log.warning(event, reason=reason, **fields)
    else:
        log.error(event, exc_info=error, **fields)


def leave_outages_to_job_logs() -> None:
    """Let Dramatiq not log the traceback of an outage: `job_failed` has the reason."""
    logging.getLogger(_JOBS_LOGGER).addFilter(_has_other_cause)


def _has_other_cause(record: logging.LogRecord) -> bool:
    return not (record.exc_info and outage_reason(record.exc_info[1]))
