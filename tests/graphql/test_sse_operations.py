"""Mutations over Server-Sent Events have an outcome, so that no client repeats them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from segmentql import buffered_metrics
from segmentql.adapters.concurrency import ConcurrencyLimit
from segmentql.adapters.database import Database
from segmentql.errors import AuthenticationFailure, Unauthenticated
from segmentql.graphql.http import stream_registry
from segmentql.graphql.http.sse import UNACKNOWLEDGED_SECONDS
from segmentql.graphql.http.stream_registry import EndReason, StreamRegistry
from segmentql.principal import ANONYMOUS_ADMIN, Principal
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, until
from tests.graphql.stream_server import StreamServer, serving_streams
from tests.graphql.test_sse import COMPLETE, OPEN, opened, results

SLOW_CHANGE = "mutation { slowChange }"
MASKED = "An internal error occurred."


@pytest.fixture
async def server(database: Database, settings: Settings) -> AsyncIterator[StreamServer]:
    async with serving_streams(database, settings) as running:
        yield running


async def started_mutation(server: StreamServer) -> asyncio.Task[list[dict[str, str]]]:
    """Send a mutation, and return its result when it is being executed."""
    task = asyncio.create_task(results(server, SLOW_CHANGE))

    async def is_executed() -> bool:
        return server.stats.mutations == 1

    await until(is_executed)
    return task


async def test_mutation_finishes_while_the_process_shuts_down(server: StreamServer) -> None:
    answer = await started_mutation(server)
    server.stopping.set()
    await asyncio.sleep(0.05)  # the registry ends the subscriptions
    server.stats.may_finish.set()
    result, complete = await answer
    assert orjson.loads(result["data"])["data"] == {"slowChange": 2}
    assert complete == COMPLETE


async def test_mutation_cancelled_by_the_server_has_an_unknown_outcome(
    server: StreamServer,
) -> None:
    answer = await started_mutation(server)
    for task in server.server.server_state.tasks:  # as uvicorn does after the time to shut down
        task.cancel()
    result, complete = await answer
    (error,) = orjson.loads(result["data"])["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE", "outcomeUnknown": True}
    assert "Read the data to find out." in error["message"]
    assert complete == COMPLETE


def registry_of(authenticate: Any) -> StreamRegistry:
    return StreamRegistry(
        ConcurrencyLimit(10, 10), stopping=asyncio.Event(), authenticate=authenticate
    )


async def test_operation_that_must_finish_is_not_ended() -> None:
    connection = registry_of(None).connect(ANONYMOUS_ADMIN, None)
    with connection:
        connection.finish_operation()
        connection.cancel(EndReason.REVOKED)
        await asyncio.sleep(0)
    assert connection.end_reason is None


async def test_revoked_key_ends_its_stream_after_an_error_of_a_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_registry, "KEY_CHECK_SECONDS", 0.01)
    failures = [RuntimeError("a fault"), Unauthenticated(AuthenticationFailure.REVOKED)]

    async def authenticate(header: bytes | None) -> Principal:
        raise failures.pop(0) if len(failures) > 1 else failures[0]

    connection = registry_of(authenticate).connect(ANONYMOUS_ADMIN, b"Bearer x")
    async with asyncio.timeout(PATIENCE_SECONDS):
        with connection:
            await asyncio.Event().wait()
    assert connection.end_reason is EndReason.REVOKED
    assert len(failures) == 1


def internal_errors() -> float:
    buffered_metrics.flush()
    return REGISTRY.get_sample_value("segmentql_errors_total", {"code": "INTERNAL"}) or 0


async def test_fault_before_the_head_is_masked_and_counted(
    database: Database, settings: Settings
) -> None:
    async def authenticate(header: bytes | None) -> Principal:
        raise RuntimeError("a secret")

    before = internal_errors()
    async with (
        serving_streams(database, settings, authenticate=authenticate) as server,
        opened(server, OPEN, x_request_id="mine") as response,
    ):
        assert response.status_code == 500
        (error,) = orjson.loads(await response.aread())["errors"]
    assert error["message"] == MASKED
    assert error["extensions"] == {"code": "INTERNAL", "requestId": "mine"}
    assert internal_errors() == before + 1


async def test_fault_after_the_head_ends_a_subscription_without_complete(
    server: StreamServer,
) -> None:
    before = internal_errors()
    first, failure = await results(server, "subscription { ticks { number unserializable } }")
    assert first["id"] == "1"
    (error,) = orjson.loads(failure["data"])["errors"]
    assert error["message"] == MASKED
    assert error["extensions"]["code"] == "INTERNAL"
    assert internal_errors() == before + 1
    assert server.stats.closed == 1


async def test_fault_of_a_result_is_followed_by_complete(server: StreamServer) -> None:
    """The client would otherwise repeat a mutation."""
    failure, complete = await results(server, "mutation { unserializableChange }")
    (error,) = orjson.loads(failure["data"])["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert complete == COMPLETE


async def test_stream_does_not_read_more_pipelined_requests(
    database: Database, settings: Settings
) -> None:
    """Each read could add thousands of requests, which wait in memory for the end of the stream."""
    async with serving_streams(database, settings, heartbeat_seconds=0.02) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        query = "subscription%7Bticks(isOpen:true)%7Bnumber%7D%7D"
        head = " HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        writer.write(f"GET /graphql?query={query}{head}".encode())
        await reader.readuntil(b'"number":3')
        (protocol,) = server.server.server_state.connections
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

        async def is_pipelined() -> bool:
            return len(protocol.pipeline) == 1  # type: ignore[union-attr]

        await until(is_pipelined)
        for _ in range(3):
            await reader.readuntil(b":\n\n")
        assert protocol.flow.read_paused  # type: ignore[union-attr]
        writer.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_stream_of_a_vanished_client_is_closed_by_the_kernel(server: StreamServer) -> None:
    async with opened(server, OPEN) as response:
        assert response.status_code == 200
        (protocol,) = server.server.server_state.connections
        connection = protocol.transport.get_extra_info("socket")
        timeout = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert timeout == UNACKNOWLEDGED_SECONDS * 1000
