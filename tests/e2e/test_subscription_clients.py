"""JavaScript clients follow the change feed through restarts of the server."""

import asyncio
import json
from functools import partial

import pytest

from segmentql.adapters.database import Database
from segmentql.local.ports import free_port
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from tests.clients.node import running_node
from tests.conftest import Sql
from tests.e2e.conftest import RunServe
from tests.keys.clients import make_key
from tests.timeline import make_segment

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 120
CHANGES = 300


@pytest.mark.parametrize("client", ["graphql-ws", "graphql-sse", "apollo", "urql"])
async def test_client_sees_each_change_once_through_restarts(
    run_serve: RunServe, database: Database, sql: Sql, client: str
) -> None:
    """The first server is stopped by SIGTERM, and the second one is killed."""
    await make_segment(sql, "A")
    key = await make_key(database, "READER", name="clients")
    port = free_port()
    seen: list[list[str]] = []
    grown = asyncio.Condition()
    may_write = asyncio.Semaphore(0)

    async def write() -> None:
        for user_id in range(1, CHANGES + 1):
            await may_write.acquire()
            add = partial(
                update_user_segments, user_id=user_id, add=["A"], remove=[], actor=NO_ACTOR
            )
            await database.transaction(add)

    async def read(process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            async with grown:
                seen.extend(json.loads(line))
                grown.notify_all()

    async def allow(changes: int) -> None:
        for _ in range(changes):
            may_write.release()
            await asyncio.sleep(0.005)  # so that the changes come in several batches

    async def seen_at_least(count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), grown:
            await grown.wait_for(lambda: len(seen) >= count)

    url = f"http://127.0.0.1:{port}/graphql"
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        async with running_node("changes.mjs", client, url, key.token) as process:
            reading = group.create_task(read(process))
            async with run_serve(port=port, SEGMENTQL_AUTH="required") as serving:
                await allow(CHANGES // 6)
                await seen_at_least(CHANGES // 6)
                allowed = group.create_task(allow(CHANGES // 6))
                serving.process.terminate()
                await serving.process.wait()
            await allowed
            async with run_serve(port=port, SEGMENTQL_AUTH="required") as serving:
                await allow(CHANGES // 6)
                await seen_at_least(CHANGES // 2)
                allowed = group.create_task(allow(CHANGES // 6))
                serving.process.kill()
            await allowed
            async with run_serve(port=port, SEGMENTQL_AUTH="required"):
                await allow(CHANGES // 3)
                await writing
                await seen_at_least(CHANGES)
            reading.cancel()
    assert seen == [[str(user_id), "JOINED"] for user_id in range(1, CHANGES + 1)]
