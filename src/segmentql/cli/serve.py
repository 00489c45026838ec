"""`segmentql serve`: the API alone, against services that run elsewhere."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click
import structlog
import uvicorn
from starlette.types import ASGIApp

from segmentql import logs
from segmentql.cli.exits import exits
from segmentql.cli.settings import settings_or_exit
from segmentql.cli.start import check_database
from segmentql.errors import SettingsError
from segmentql.settings import Settings, check_reach, share_metrics

if TYPE_CHECKING:
    from segmentql.adapters.http_connections import ConnectionTable

log = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 30
"""How long requests under way may take when the server is told to stop."""

GC_THRESHOLDS: Final = (10_000, 2, 1_000)
"""When the garbage collector looks at the youngest objects, the younger ones, and all of them.

A look at 100,000 objects keeps everybody waiting for 30 to 80 ms: often and little is better, and
all of them hardly ever. What requests leave behind is not cyclic, or young."""


@click.command(epilog=exits("serve"))
@click.option("--host", help="The address to listen on.  [default: SEGMENTQL_HOST or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port to listen on.  [default: SEGMENTQL_PORT or 8080]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes serve the API.",
)
def serve(host: str | None, port: int | None, workers: int) -> None:
    """Serve the API alone, against services that run elsewhere.

    The settings say where the database, Redis and the store are.
    """
    settings = settings_or_exit(with_store=True, host=host, port=port)
    try:
        check_reach(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    # The logs of this process, which starts and stops the others if there are several.
    logs.configure(settings, program="API")
    check_database(settings)
    # After a graceful stop uvicorn raises the signal again, which would look like a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with _metrics_shared(settings) if workers > 1 else nullcontext():
        uvicorn.run(
            "segmentql.cli.serve:make_app",
            factory=True,
            http="segmentql.cli.serve:make_protocol",
            host=settings.host,
            port=settings.port,
            workers=workers,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


@contextmanager
def _metrics_shared(settings: Settings) -> Iterator[None]:
    """Let any process answer for all: in a folder that is set, or in one for this run."""
    if settings.metrics_dir:
        yield
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="segmentql-metrics-"))
        except OSError as error:  # the disk is full: each process answers for itself
            log.warning("metrics_not_shared", reason=str(error))
        else:
            share_metrics(Path(folder))
        yield


SWITCH_SECONDS: Final = 0.0005
"""How long a thread that prepares a document may keep the event loop waiting; Python's own is
0.005, which each step of a small read would wait for."""


def make_app() -> ASGIApp:
    """Make one process' application; uvicorn calls this in each."""
    from segmentql.app import create_app  # noqa: PLC0415 - the schema takes a moment to build

    settings = settings_or_exit(with_store=True)
    logs.configure(settings, program="API")
    app = create_app(settings)
    _connections()
    _on_sigterm(app.state.stopping.set)
    # What the process is made of lives as long as it does: the collector need not look at it
    # again and again, and not at every few hundred objects that a large answer is made of.
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def make_protocol(**given: Any) -> asyncio.Protocol:
    """Make the server's side of one connection; uvicorn calls this in each process."""
    from segmentql.adapters.http_protocol import BoundedProtocol  # noqa: PLC0415 - see below

    return BoundedProtocol(table=_connections(), **given)


@cache
def _connections() -> "ConnectionTable":
    """The connections of this process.

    The import counts metrics, which the process that only starts the others must not do.
    """
    from segmentql.adapters import http_connections  # noqa: PLC0415

    settings = settings_or_exit(with_store=True)
    return http_connections.ConnectionTable(
        limit=http_connections.fit_to_descriptors(settings.max_connections),
        keep_alive_seconds=settings.keep_alive_seconds,
    )


def _on_sigterm(call: Callable[[], None]) -> None:
    """Also do this when the server is told to stop; uvicorn's own handler is installed by now."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, before: Any = before) -> None:
            loop.call_soon_threadsafe(call)
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)
