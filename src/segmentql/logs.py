"""Logging: one JSON object a line, or console style on a terminal.

Fields: `event`, `level`, `timestamp` (UTC), `logger`, and where they apply `request_id`,
`operation`, `outcome`, `duration_ms`, `cost`, `status`, `code`, `key` (its name), `job`, `args`
(ids). Never a secret, a link or a body.

A job bears the id of the request that asked for it; one that the scheduler found bears none.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from typing import Any, Final, Protocol

import orjson
import structlog

from segmentql.settings import Settings

REQUESTS: Final = "segmentql.requests"


class RequestLog(Protocol):
    """Where a line for each request goes."""

    def info(self, event: str, **fields: Any) -> Any: ...


def configure(settings: Settings) -> None:
    """Send every log of ours and of our libraries to standard error, in one style."""
    console = _is_console(settings)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    endings: list[structlog.typing.Processor] = (
        # Plain: where `rich` is installed, tracebacks would show every local variable.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *endings],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # botocore's tell what it signs, links included.
    for silenced in (
        *("dramatiq", "uvicorn.access", "alembic.runtime.plugins"),
        *("aioboto3", "aiobotocore", "botocore"),
    ):
        logging.getLogger(silenced).setLevel("WARNING")


def request_log(settings: Settings) -> RequestLog | None:
    """Where requests are logged, after `configure`; None where they are not.

    As JSON in a few microseconds, a fifth of what a line takes on its way through `logging`.
    """
    if settings.log_requests == "off" or settings.log_level not in {"debug", "info"}:
        return None
    if _is_console(settings):
        console: RequestLog = structlog.get_logger(REQUESTS)
        return console
    lines: RequestLog = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    ).bind(logger=REQUESTS)
    return lines


LINES_PER_SECOND: Final = 20
"""Lines of one throttled log; what exceeds them in a second is counted in one more line."""


class ThrottledLog:
    """A log whose volume clients cannot drive up; used on an event loop."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._second = 0
        self._lines = 0
        self._omitted: Counter[str] = Counter()

    def warning(self, event: str, *, reason: str, **fields: object) -> None:
        """Write a line, or count it by event and reason if this second has had enough lines."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= LINES_PER_SECOND:
            self._log.warning(event, reason=reason, **fields)
            return
        if not self._omitted:
            asyncio.get_running_loop().call_later(1, self._write_omitted)
        self._omitted[f"{event}: {reason}"] += 1

    def _write_omitted(self) -> None:
        self._log.warning("lines_omitted", counts=dict(self._omitted))
        self._omitted.clear()


class _StandardError:
    """Whether anybody reads what is written must not matter to a request."""

    @staticmethod
    def info(line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads; it is closed
            sys.stderr.buffer.write(line + b"\n")
            sys.stderr.buffer.flush()


def _is_console(settings: Settings) -> bool:
    return settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
