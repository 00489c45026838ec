"""Logging: one JSON object a line, or console style on a terminal.

Fields: `event`, `level`, `timestamp` (UTC), `logger`, and where they apply `request_id`,
`operation`, `outcome`, `duration_ms`, `cost`, `status`, `code`, `reason`, `path`, `client` (an
address), `size` (bytes), `seconds`, `key` (its name), `job`, `args` (ids). Never a secret, a link
or a body.

A job bears the id of the request that asked for it; one that the scheduler found bears none.

With `SEGMENTQL_LOG_ERRORS_TO_STDOUT` each error is also one short line on standard output.
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

from segmentql.settings import Settings, wants_no_colour

REQUESTS: Final = "segmentql.requests"
PROGRAM_WIDTH: Final = 13
"""The first column of what `segmentql up` prints on a terminal."""


LINES_PER_SECOND: Final = 20
"""Lines of one throttled log; what exceeds them in a second is counted in one more line."""

MAX_KINDS: Final = 20
"""Kinds of omitted lines that are counted apart."""

REJECTIONS_PER_SECOND: Final = 200
"""Lines for requests that are not executed: an attacker needs no key to cause one."""


class Log(Protocol):
    """What a line is written to."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class ThrottledLog:
    """A log whose volume clients cannot drive up; used on an event loop."""

    def __init__(self, log: Log, *, lines_per_second: int = LINES_PER_SECOND) -> None:
        self._log = log
        self._lines_per_second = lines_per_second
        self._second = 0
        self._lines = 0
        self._omitted: Counter[str] = Counter()

    def warning(self, event: str, *, reason: str, **fields: object) -> None:
        """Write a line, or count it by event and reason if this second has had enough lines."""
        if self._may_write(f"{event}: {reason}"):
            self._log.warning(event, reason=reason, **fields)

    def info(self, event: str, *, reason: str, **fields: object) -> None:
        """Write a line as `warning` does, for what is no fault of the service."""
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
    """One line for each request, or only for those that are rejected or fail."""

    def __init__(self, log: Log, *, every_request: bool) -> None:
        self._log = log
        self._throttled = ThrottledLog(log, lines_per_second=REJECTIONS_PER_SECOND)
        self._every_request = every_request

    def executed(self, *, failed: bool, is_fault: bool, **fields: object) -> None:
        """Write the line of a request that was executed, or whose document was rejected."""
        if is_fault:
            self._log.warning("request", **fields)
        elif failed or self._every_request:
            self._log.info("request", **fields)

    def unread(self, *, request_id: str, size: int, seconds: float) -> None:
        """Write the line of a response of `size` bytes that a client did not read in `seconds`."""
        self._throttled.info(
            "response_not_read",
            reason="the client did not read the response in time",
            request_id=request_id,
            size=size,
            seconds=seconds,
        )

    def rejected(self, *, is_fault: bool, reason: str, **fields: object) -> None:
        """Write the line of a request that was not executed."""
        write = self._throttled.warning if is_fault else self._throttled.info
        write("request_refused", reason=reason, **fields)


def configure(settings: Settings, *, program: str = "segmentql") -> None:
    """Send every log of ours and of our libraries to standard error, in one style.

    Args:
        settings: The level, the style, and whether errors also go to standard output.
        program: The name that lines on standard output begin with, such as "API".
    """
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
    if settings.log_errors_to_stdout == "on":
        root.handlers.append(ErrorLines(program))
    root.setLevel(settings.log_level.upper())
    # botocore's tell what it signs, links included.
    for silenced in (
        *("dramatiq", "uvicorn.access", "alembic.runtime.plugins"),
        *("aioboto3", "aiobotocore", "botocore"),
    ):
        logging.getLogger(silenced).setLevel("WARNING")


class ErrorLines(logging.Handler):
    """Prints one line on standard output for each error; the log has the details.

    One fault may cause thousands of errors: beyond `PER_WINDOW` in `WINDOW_SECONDS` they are not
    printed, and a line says so.
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
        """Print the event and the exception of a record, if the window has room for it."""
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
    """Return where requests are logged, after `configure`.

    A line of JSON takes a few microseconds, a fifth of what it takes on its way through `logging`.
    """
    log: Log
    if _is_console(settings):
        log = structlog.get_logger(REQUESTS)
    else:
        level = logging.getLevelNamesMapping()[settings.log_level.upper()]
        log = structlog.wrap_logger(
            _StandardError(),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        ).bind(logger=REQUESTS)
    return RequestLog(log, every_request=settings.log_requests == "on")


class _StandardError:
    """Whether anybody reads what is written must not matter to a request."""

    @staticmethod
    def info(line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads; it is closed
            sys.stderr.buffer.write(line + b"\n")
            sys.stderr.buffer.flush()

    warning = info


def _is_console(settings: Settings) -> bool:
    return settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
