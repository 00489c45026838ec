"""After SIGTERM, running requests are answered and new ones are rejected."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from tests.conftest import PATIENCE_SECONDS, Sql, until, without_cost
from tests.e2e.conftest import RunServe, Serving

pytestmark = pytest.mark.e2e

CHANGE = "mutation { deleteUser(input: {id: 1}) { deletedId errors { code } } }"
REPORT = """
mutation {
  createReport(input: {year: 2024, month: 3, waitSeconds: 60}) {
    report { id status downloadUrl } errors { code }
  }
}
"""
READ = "{ segments { nodes { slug } } }"
CONNECTIONS = Path("/proc/net/tcp")
ESTABLISHED = "01"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def test_running_request_is_answered_before_the_server_ends(serve: Serving, sql: Sql) -> None:
    await sql.execute("INSERT INTO users VALUES (1, now())")
    async with httpx.AsyncClient(timeout=30) as client:
        async with sql.transaction():
            await sql.execute("SELECT FROM users WHERE id = 1 FOR UPDATE")
            asking = asyncio.create_task(
                client.post(f"{serve.address}/graphql", json={"query": CHANGE})
            )
            await until(lambda: sql.fetchval(WAITING))
            serve.process.terminate()

            async def rejects_new_connections() -> bool:
                try:
                    async with httpx.AsyncClient() as other:
                        await other.get(f"{serve.address}/healthz")
                except httpx.TransportError:
                    return True
                return False

            await until(rejects_new_connections)
            assert not asking.done()
        # The lock ends with its transaction.
        answer = await asking
    assert without_cost(answer.json()) == {"data": {"deleteUser": {"deletedId": "1", "errors": []}}}
    # uvicorn ends by the signal itself after SIGTERM, once all requests are answered.
    assert await serve.process.wait() in {0, -15}


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_request_that_waits_for_a_report_gets_its_status(
    run_serve: RunServe, sql: Sql, processes: str
) -> None:
    """No worker runs, so that only the signal ends the wait."""
    async with (
        run_serve("--workers", processes) as serve,
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,  # before the wait is over
    ):
        asking = asyncio.create_task(
            client.post(f"{serve.address}/graphql", json={"query": REPORT})
        )
        await until(lambda: sql.fetchval("SELECT count(*) FROM reports"))
        serve.process.terminate()
        answer = await asking
        assert without_cost(answer.json()) == {
            "data": {
                "createReport": {
                    "report": {"id": "rep_1", "status": "QUEUED", "downloadUrl": None},
                    "errors": [],
                }
            }
        }
        await asyncio.wait_for(serve.process.wait(), PATIENCE_SECONDS)


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_drain_period_serves_requests_and_closes_connections(
    run_serve: RunServe, processes: str
) -> None:
    changes = {"SEGMENTQL_DRAIN_SECONDS": "3"}
    async with (
        run_serve("--workers", processes, **changes) as serve,
        httpx.AsyncClient(base_url=serve.address, timeout=PATIENCE_SECONDS) as client,
    ):
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "connection" not in ready.headers
        serve.process.terminate()

        async def is_draining() -> bool:
            return (await client.get("/readyz")).status_code == 503

        await until(is_draining)
        # One after the other, so that each needs a new connection.
        for _ in range(5):
            response = await client.post("/graphql", json={"query": READ})
            assert response.json()["data"] == {"segments": {"nodes": []}}
            assert response.headers["connection"] == "close"
        response = await client.get("/readyz")
        assert response.json() == {"process": "stopping"}
        await asyncio.wait_for(serve.process.wait(), PATIENCE_SECONDS)
        with pytest.raises(httpx.ConnectError):
            await client.get("/readyz")


async def test_second_signal_ends_the_drain_period(run_serve: RunServe, sql: Sql) -> None:
    """A request in progress is still answered."""
    async with (
        run_serve(SEGMENTQL_DRAIN_SECONDS="300") as serve,
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
    ):
        asking = asyncio.create_task(
            client.post(f"{serve.address}/graphql", json={"query": REPORT})
        )
        await until(lambda: sql.fetchval("SELECT count(*) FROM reports"))
        serve.process.terminate()
        await until(lambda: _is_draining(serve))
        assert not asking.done()
        serve.process.terminate()
        assert (await asking).status_code == 200
        await asyncio.wait_for(serve.process.wait(), PATIENCE_SECONDS)


async def test_request_on_an_idle_connection_is_answered_while_the_server_stops(
    serve: Serving,
) -> None:
    """A proxy may send a request before it notices that the connection is being closed."""
    host, port = serve.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    writer.write(request)
    assert b'{"status":"ok"}' in await reader.readuntil(b"}")
    serve.process.terminate()
    await until(lambda: _rejects_connections(serve))
    await asyncio.sleep(0.2)  # uvicorn begins its shutdown up to 0.1 s after that
    writer.write(request)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    writer.close()


async def test_connection_that_waits_is_served_at_the_stop(run_serve: RunServe, sql: Sql) -> None:
    """The process is suspended, so that the signal and the connections arrive at the same time."""
    async with run_serve() as serve:
        serve.process.send_signal(signal.SIGSTOP)
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            asking = [
                asyncio.create_task(client.post(f"{serve.address}/graphql", json={"query": READ}))
                for _ in range(20)
            ]
            port = int(serve.address.rpartition(":")[2])
            await until(lambda: _have_arrived(port, len(asking)))
            serve.process.terminate()
            serve.process.send_signal(signal.SIGCONT)
            answers = await asyncio.gather(*asking)
        assert [answer.status_code for answer in answers] == [200] * len(asking)


async def test_managing_process_holds_no_listening_socket_at_the_stop(
    run_serve: RunServe, sql: Sql
) -> None:
    """Connections are rejected while a request is in progress; they do not wait for its end."""
    async with (
        run_serve("--workers", "2") as serve,
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client,
    ):
        await sql.execute("INSERT INTO users VALUES (1, now())")
        async with sql.transaction():
            await sql.execute("SELECT FROM users WHERE id = 1 FOR UPDATE")
            asking = asyncio.create_task(
                client.post(f"{serve.address}/graphql", json={"query": CHANGE})
            )
            await until(lambda: sql.fetchval(WAITING))
            serve.process.terminate()
            await until(lambda: _rejects_connections(serve))
            assert not asking.done()
        assert (await asking).status_code == 200


async def _is_draining(serve: Serving) -> bool:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{serve.address}/readyz")).status_code == 503


async def _rejects_connections(serve: Serving) -> bool:
    host, port = serve.address.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False


async def _have_arrived(port: int, number: int) -> bool:
    """Return whether this many connections have sent their request to a suspended process."""
    if not CONNECTIONS.exists():
        pytest.skip("counts connections in Linux' /proc")
    rows = [row.split() for row in CONNECTIONS.read_text().splitlines()[1:]]
    waiting = [
        row
        for row in rows
        if int(row[1].partition(":")[2], 16) == port
        and row[3] == ESTABLISHED
        and int(row[4].partition(":")[2], 16)
    ]
    return len(waiting) >= number
