"""What a worker answers by HTTP where it has a port: `/healthz` and `/metrics`, as the API does."""

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

from segmentql import logs
from segmentql.adapters.http import (
    SAFE_HEADERS,
    LogRejections,
    RequestIds,
    SingleHeaders,
    WithHeaders,
)
from segmentql.adapters.http_connections import ConnectionTable
from segmentql.adapters.http_protocol import bounded_protocol
from segmentql.adapters.metrics_endpoint import access_error, metrics_response
from segmentql.settings import Settings

MAX_CONNECTIONS: Final = 100
"""Of a worker; Prometheus and a probe need two."""


def make_app(settings: Settings, works: Callable[[], bool]) -> Starlette:
    """`works` says whether jobs are taken at all."""

    async def healthz(request: Request) -> Response:
        is_well = works()
        return JSONResponse(
            {"status": "ok" if is_well else "failed"}, status_code=200 if is_well else 503
        )

    async def metrics(request: Request) -> Response:
        refused = access_error(request, settings)
        if refused is not None:
            return refused
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
    app.router.redirect_slashes = False  # its redirects name the host that the client named
    return app


def listen(settings: Settings) -> socket.socket | None:
    """Take the worker's port, so that a start without it fails at once; None where none is set.

    Raises:
        OSError: somebody else has it, or the host is not this machine's.
    """
    if not settings.worker_port:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.worker_port), family=family)


class WorkerHttp:
    """The server, on the worker's event loop: if that hangs, `/healthz` does not answer."""

    def __init__(
        self, settings: Settings, listening: socket.socket, works: Callable[[], bool]
    ) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                make_app(settings, works),
                http=bounded_protocol(
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
