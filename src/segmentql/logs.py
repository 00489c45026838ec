"""Logging: one JSON object a line, or console style on a terminal.

Fields: `event`, `level`, `timestamp` (UTC), `logger`, and where they apply `request_id`,
`operation`, `outcome`, `duration_ms`, `job`. Never a secret, a link or a body.
"""

import logging
import sys

import structlog

from segmentql.settings import Settings


def configure(settings: Settings) -> None:
    """Send every log of ours and of our libraries to standard error, in one style."""
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
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
        [structlog.dev.ConsoleRenderer()]
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
