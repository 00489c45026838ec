"""The HTTP endpoints of a worker: `/healthz` and `/metrics`, if it has a port."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segmentql import buffered_metrics, logs
from segmentql.adapters.http import (
    SAFE_HEADERS,
    LogRejections,
    RequestIds,
    SingleHeaders,
    WithHeaders,
)
from segmentql.adapters.http_connections import ConnectionTable
from segmentql.adapters.http_protocol import limited_protocol
from segmentql.adapters.metrics_endpoint import access_error, metrics_response
from segmentql.settings import Settings

MAX_CONNECTIONS: Final = 100
"""The maximum number of connections. Prometheus and a probe need two."""


def make_app(settings: Settings, is_healthy: Callable[[], bool]) -> Starlette:
    """Return the application. `is_healthy` returns whether the worker processes jobs."""

    async def healthz(request: Request) -> Response:
        is_ok = is_healthy()
        return JSONResponse(
            {"status": "ok" if is_ok else "failed"}, status_code=200 if is_ok else 503
        )

    async def metrics(request: Request) -> Response:
        error = access_error(request, settings)
        if error is not None:
            return error
        buffered_metrics.flush()
        return await asyncio.to_thread(metrics_response, settings)

    log = logs.request_log(settings)
    app = Starlette(
        routes=[Route("/healthz", healthz), Route("/metrics", metrics)],
        middleware=[
            Middleware(WithHeaders, SAFE_HEADERS),
            Middleware(RequestIds),
            Middleware(SingleHeaders, log),
            Middleware(LogRejections, log),
        ],
    )
    app.router.redirect_slashes = False  # its redirects would contain the client's Host header
    return app


def listen(settings: Settings) -> socket.socket | None:
    """Return a socket that listens at the worker's port, or None if no port is set.

    It is opened before the worker starts, so that a port in use is reported at once.

    Raises:
        OSError: the port is in use, or the host is not an address of this machine.
    """
    if not settings.worker_port:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.worker_port), family=family)


class WorkerHttp:
    """The HTTP server. It uses the worker's event loop: if that hangs, `/healthz` times out."""

    def __init__(
        self, settings: Settings, listening: socket.socket, is_healthy: Callable[[], bool]
    ) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(settings, is_healthy),
                http=limited_protocol(
                    ConnectionTable(
                        limit=MAX_CONNECTIONS, keep_alive_seconds=settings.keep_alive_seconds
                    )
                ),
                timeout_keep_alive=settings.keep_alive_seconds,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
            )
        )
        self._serving = asyncio.create_task(self._server.serve([listening]))

    async def stop(self) -> None:
        self._server.should_exit = True
        await asyncio.wait([self._serving])
