"""Logging: one JSON object per line, or console format on a terminal.

Every line has `event`, `level`, `timestamp` (UTC) and `logger`. Depending on the event it has
`request_id`, `operation`, `outcome`, `duration_ms`, `cost`, `status` (of HTTP), `close_code` (of a
WebSocket), `code`, `reason`, `path`, `client` (an address), `size` (bytes), `seconds`, `key` (its
name), `job`, `args` (ids) and `trace_id` (if tracing is on). Secrets, links and bodies are never
logged.

A job has the id of the request that enqueued it. A job that the scheduler enqueued has none.

With `SEGMENTQL_LOG_ERRORS_TO_STDOUT`, each error is also a short line on standard output.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from contextvars import ContextVar
from typing import Any, Final, Protocol

import structlog

from segmentql import log_lines
from segmentql.settings import Settings, wants_no_colour

REQUESTS: Final = "segmentql.requests"
PROGRAM_WIDTH: Final = 13
"""The width of the first column in the output of `segmentql up` on a terminal."""


REQUEST_ID: Final[ContextVar[str]] = ContextVar(
    structlog.contextvars.STRUCTLOG_KEY_PREFIX + "request_id"
)
"""The id of the current request. By its name, structlog adds it to the lines of a request."""

LINES_PER_SECOND: Final = 20
"""The maximum number of lines per second of a throttled log. One more line counts the others."""

MAX_KINDS: Final = 20
"""The maximum number of kinds of omitted lines that are counted separately."""

REJECTIONS_PER_SECOND: Final = 200
"""The maximum number of lines per second for rejected requests, which need no API key."""


class Log(Protocol):
    """A logger."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class ThrottledLog:
    """A log with a limited number of lines per second. For use on an event loop."""

    def __init__(self, log: Log, *, lines_per_second: int = LINES_PER_SECOND) -> None:
        self._log = log
        self._lines_per_second = lines_per_second
        self._second = 0
        self._lines = 0
        self._omitted: Counter[str] = Counter()

    def warning(self, event: str, *, reason: str, **fields: object) -> None:
        """Write a line, or count it by event and reason if the limit is exceeded."""
        if self._may_write(f"{event}: {reason}"):
            self._log.warning(event, reason=reason, **fields)

    def info(self, event: str, *, reason: str, **fields: object) -> None:
        """Write a line as `warning` does, for events that are not errors of the service."""
        if self._may_write(f"{event}: {reason}"):
            self._log.info(event, reason=reason, **fields)

    def _may_write(self, kind: str) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= self._lines_per_second:
            return True
        if not self._omitted:
            asyncio.get_running_loop().call_later(1, self._write_omitted)
        if kind in self._omitted or len(self._omitted) < MAX_KINDS:
            self._omitted[kind] += 1
        else:
            self._omitted["other"] += 1
        return False

    def _write_omitted(self) -> None:
        self._log.warning("lines_omitted", counts=dict(self._omitted))
        self._omitted.clear()


class RequestLog:
    """The log of requests: of all of them, or only of rejected and failed ones."""

    def __init__(self, log: Log, *, every_request: bool) -> None:
        self._log = log
        self._throttled = ThrottledLog(log, lines_per_second=REJECTIONS_PER_SECOND)
        self._every_request = every_request

    def executed(self, *, failed: bool, is_fault: bool, **fields: object) -> None:
        """Log a request that was executed, or whose document was rejected."""
        if is_fault:
            self._log.warning("request", **fields)
        elif failed or self._every_request:
            self._log.info("request", **fields)

    def unread(self, *, request_id: str, size: int, seconds: float) -> None:
        """Log a response of `size` bytes that a client did not read within `seconds`."""
        self._throttled.info(
            "response_not_read",
            reason="the client did not read the response in time",
            request_id=request_id,
            size=size,
            seconds=seconds,
        )

    def rejected(self, *, is_fault: bool, reason: str, **fields: object) -> None:
        """Log a request that was not executed."""
        write = self._throttled.warning if is_fault else self._throttled.info
        write("request_refused", reason=reason, **fields)
        self.flush()

    @staticmethod
    def flush() -> None:
        """Write the waiting lines now, and not in the next iteration of the event loop."""
        log_lines.flush()


def configure(settings: Settings, *, program: str = "segmentql") -> None:
    """Send all logs, including those of libraries, to standard error in one format.

    Args:
        settings: the level, the format, and whether errors also go to standard output.
        program: the name at the start of lines on standard output, such as "API".
    """
    is_console = _is_console(settings)
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
    renderers: list[structlog.typing.Processor] = (
        # Plain, because with `rich` installed tracebacks would show all local variables.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = log_lines.OrderedHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    if settings.log_errors_to_stdout == "on":
        root.handlers.append(ErrorLines(program))
    root.setLevel(settings.log_level.upper())
    # botocore logs what it signs, including links.
    for quiet in (
        *("dramatiq", "uvicorn.access", "alembic.runtime.plugins"),
        *("aioboto3", "aiobotocore", "botocore"),
    ):
        logging.getLogger(quiet).setLevel("WARNING")


class ErrorLines(logging.Handler):
    """Prints one line on standard output for each error. The log has the details.

    One fault can cause thousands of errors. At most `PER_WINDOW` are printed in `WINDOW_SECONDS`,
    then one line that more errors are in the log.
    """

    PER_WINDOW: Final = 5
    WINDOW_SECONDS: Final = 10.0
    TEXT_CHARACTERS: Final = 200

    def __init__(self, program: str) -> None:
        super().__init__(logging.ERROR)
        self._program = program
        self._window_start = float("-inf")
        self._printed = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Print the event and the exception of a record, within the limit of the window."""
        now = time.monotonic()
        if now - self._window_start > self.WINDOW_SECONDS:
            self._window_start, self._printed = now, 0
        self._printed += 1
        if self._printed <= self.PER_WINDOW:
            self._print(self._text(record))
        elif self._printed == self.PER_WINDOW + 1:
            self._print(f"more errors within {self.WINDOW_SECONDS:g} s are only in the log")

    def _text(self, record: logging.LogRecord) -> str:
        event: Any = record.msg if isinstance(record.msg, dict) else {}
        text = str(event.get("event", "")) if event else record.getMessage()
        error = event.get("exc_info") or record.exc_info
        if isinstance(error, tuple):
            error = error[1]
        if error is True:
            error = sys.exc_info()[1]
        if isinstance(error, BaseException):
            text = f"{text}: {type(error).__name__}: {error}"
        text = (text.splitlines() or [""])[0]
        if len(text) > self.TEXT_CHARACTERS:
            text = text[: self.TEXT_CHARACTERS] + " ..."
        request_id = event.get("request_id")
        return f"{text} (request_id {request_id})" if request_id else text

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed terminal or pipe
            if sys.stdout.isatty():
                name = f"{self._program:<{PROGRAM_WIDTH}}"
                name = name if wants_no_colour() else f"\x1b[31m{name}\x1b[0m"
                line = f"{name}error: {text}"
            else:
                line = f"{self._program} error: {text}"
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def request_log(settings: Settings) -> RequestLog:
    """Return the log of requests. Call `configure` first."""
    log: Log
    if _is_console(settings):
        log = structlog.get_logger(REQUESTS)
    else:
        log = log_lines.JsonLines(
            REQUESTS, logging.getLevelNamesMapping()[settings.log_level.upper()]
        )
    return RequestLog(log, every_request=settings.log_requests == "on")


def _is_console(settings: Settings) -> bool:
    return settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
