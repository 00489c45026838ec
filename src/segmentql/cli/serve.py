"""`segmentql serve`: runs the API with external services."""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click
import structlog
import uvicorn
from starlette.types import ASGIApp

from segmentql import logs
from segmentql.adapters.pages import missing_pages
from segmentql.cli.converters import ProcessCount
from segmentql.cli.exits import exits
from segmentql.cli.graceful_stop import ApiProcesses, GracefulStop
from segmentql.cli.settings import settings_or_exit
from segmentql.cli.start import check_database
from segmentql.errors import SettingsError
from segmentql.settings import (
    Settings,
    open_telemetry_variables,
    require_loopback_without_auth,
    require_pages_for_trusted_documents,
    share_metrics,
)
from segmentql.tracing import setup

if TYPE_CHECKING:
    from segmentql.adapters.http_connections import ConnectionTable

log = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 30
"""How long requests in progress may take when no new connection is accepted."""

PING_SECONDS: Final = 20
"""The interval of the pings that keep WebSockets open and find lost clients."""

GC_THRESHOLDS: Final = (10_000, 2, 1_000)
"""Thresholds of the garbage collector for its three generations.

A full collection of 100,000 objects blocks the process for 30 to 80 ms. So the collector checks
young objects often and all objects rarely. Garbage of requests is either acyclic or young."""


@click.command(epilog=exits("serve"))
@click.option("--host", help="The address to listen on.  [default: SEGMENTQL_HOST or 127.0.0.1]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port to listen on.  [default: SEGMENTQL_PORT or 8080]",
)
@click.option(
    "--workers",
    metavar="N|auto",
    type=ProcessCount(),
    default=1,
    show_default=True,
    help="The number of API processes. auto: one per processor, within the memory.",
)
def serve(host: str | None, port: int | None, workers: int) -> None:
    """Run the API with external services.

    The settings contain the addresses of the database, Redis and the object store.
    """
    settings = settings_or_exit(with_store=True, host=host, port=port)
    try:
        require_loopback_without_auth(settings)
        require_pages_for_trusted_documents(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    # The logs of this process, which manages the API processes if there are several.
    logs.configure(settings, program="API")
    check_database(settings)
    _warn_of_missing_pages(settings)
    # After a graceful stop, uvicorn raises the signal again, which would exit with an error.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with _shared_metrics_dir(settings) if workers > 1 else nullcontext():
        _run(
            "segmentql.cli.serve:make_app",
            factory=True,
            http="segmentql.cli.serve:make_protocol",
            ws="segmentql.cli.serve:make_websocket_protocol",
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=False,  # a small message could expand to a large one
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=settings.send_timeout_seconds,
            host=settings.host,
            port=settings.port,
            workers=workers,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing reads the client's address or scheme
            timeout_graceful_shutdown=GRACE_SECONDS,
        )


def _warn_of_missing_pages(settings: Settings) -> None:
    pages = missing_pages(settings)
    if pages:
        log.warning("pages_not_built", pages=pages, reason="run `make web` to build them")


def _run(application: str, **options: Any) -> None:
    """Run one API process, or several with their managing process, until a stop signal."""
    if options["workers"] == 1:
        uvicorn.run(application, **options)
        return
    config = uvicorn.Config(application, **options)
    ApiProcesses(config, sockets=[config.bind_socket()]).run()


@contextmanager
def _shared_metrics_dir(settings: Settings) -> Iterator[None]:
    """Share metrics between processes, in the configured folder or a temporary one."""
    if settings.metrics_dir:
        yield
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="segmentql-metrics-"))
        except OSError as error:  # The disk is full: each process reports only its own metrics.
            log.warning("metrics_not_shared", reason=str(error))
        else:
            share_metrics(Path(folder))
        yield


THREAD_SWITCH_SECONDS: Final = 0.0005
"""How long a thread that prepares a document may block the event loop. With Python's default of
0.005 s, each step of a small read would wait that long."""


def make_app() -> ASGIApp:
    """Create the application of one process; uvicorn calls this in each process."""
    from segmentql.app import create_app  # noqa: PLC0415 - building the schema is slow

    settings = settings_or_exit(with_store=True)
    logs.configure(settings, program="API")
    setup.start(open_telemetry_variables(), service_name="segmentql-api")
    app = create_app(settings)
    _connections()

    def drain() -> None:
        app.state.is_draining = True
        _connections().drain()

    GracefulStop(
        drain_seconds=settings.drain_seconds, on_drain=drain, on_stop=app.state.stopping.set
    ).install()
    # The objects that exist now live as long as the process, so the collector can skip them. It
    # also need not run for every few hundred objects of a large response.
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def make_protocol(**given: Any) -> asyncio.Protocol:
    """Create the protocol of one connection; uvicorn calls this in each process."""
    from segmentql.adapters.http_protocol import limited_protocol  # noqa: PLC0415 - see below

    return limited_protocol(_connections())(**given)


def make_websocket_protocol(**given: Any) -> asyncio.Protocol:
    """Create the protocol of one WebSocket; uvicorn calls this in each process."""
    from segmentql.adapters.websocket_protocol import (  # noqa: PLC0415 - see below
        limited_websocket_protocol,
    )

    return limited_websocket_protocol(_connections())(**given)


@cache
def _connections() -> "ConnectionTable":
    """Return the connection table of this process.

    The import registers metrics, which the managing process must not do.
    """
    from segmentql.adapters import http_connections  # noqa: PLC0415

    settings = settings_or_exit(with_store=True)
    return http_connections.ConnectionTable(
        limit=http_connections.fit_to_descriptors(settings.max_connections),
        keep_alive_seconds=settings.keep_alive_seconds,
    )
