"""The endpoints for load balancers and Prometheus: `/healthz`, `/readyz` and `/metrics`."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segmentql import buffered_metrics, metrics_collector
from segmentql.adapters.metrics_endpoint import access_error, metrics_response

PING_TIMEOUT_SECONDS: Final = 0.3
"""The timeout of `/readyz` for Redis and the object store, which do not affect its status."""


def monitoring_routes() -> list[Route]:
    """Return the routes of the endpoints, with and without a slash at the end."""
    endpoints = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return [Route(path + end, endpoints[path]) for path in endpoints for end in ("", "/")]


async def healthz(request: Request) -> Response:
    """Respond with 200 while the process runs, regardless of its dependencies."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Respond with 200 if the database responds, so that reads can be served, otherwise 503.

    From the stop signal on, the status is 503, so that load balancers send no new requests.
    """
    state = request.app.state
    if state.is_draining:
        return JSONResponse({"process": "stopping"}, status_code=503)
    is_database_up, is_redis_up, is_store_up = await asyncio.gather(
        state.database.ping(),
        state.queue_stats.ping(),
        state.storage.ping(seconds=PING_TIMEOUT_SECONDS),
    )
    dependencies = {
        "database": "ok" if is_database_up else "unavailable",
        "redis": "ok" if is_redis_up else "degraded",
        "store": "ok" if is_store_up else "degraded",
    }
    if state.database.has_replica:
        dependencies["replica"] = "ok" if state.database.is_replica_usable else "degraded"
    return JSONResponse(
        dependencies,
        status_code=200 if is_database_up else 503,
    )


async def metrics(request: Request) -> Response:
    """Respond with the metrics of all processes that share the folder and the scraped gauges."""
    state = request.app.state
    error = access_error(request, state.settings)
    if error is not None:
        return error
    scraped = await metrics_collector.collect(state.database, state.queue_stats, state.storage)
    buffered_metrics.flush()
    return await asyncio.to_thread(metrics_response, state.settings, scraped)
