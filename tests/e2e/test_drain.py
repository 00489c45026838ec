"""After SIGTERM, running requests are answered and new ones are rejected."""

import asyncio

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
