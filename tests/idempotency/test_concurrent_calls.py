"""Concurrent mutations with the same key: one is executed, and the others get its result."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from segmentql import metrics
from segmentql.settings import Settings
from tests.conftest import Api, Sql, serving, until, without_cost
from tests.idempotency.cases import Case, is_unavailable, send_with_key

pytestmark = pytest.mark.usefixtures("long_connection_timeout")

RENAME = Case("updateSegment", {"slug": "A", "name": "new"}, "segment { id name version }")
RENAMED = {"segment": {"id": "seg_1", "name": "new", "version": 2}, "errors": []}
CONCURRENT_CALLS = 50

WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"


async def waiting(sql: Sql) -> int:
    """Return the number of the service's transactions that wait for a lock."""
    count: int = await sql.fetchval(WAITING)
    return count


@asynccontextmanager
async def slow_mutation(sql: Sql) -> AsyncIterator[None]:
    """Let `RENAME` wait until the block ends."""
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at) VALUES ('A', now(), now())"
    )
    async with sql.transaction():
        await sql.execute("SELECT FROM segments FOR UPDATE")
        yield


@pytest.fixture
async def processes(settings: Settings, sql: Sql) -> AsyncIterator[list[Api]]:
    """Run four applications, which have nothing in common but the database."""
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(serving(settings)) for _ in range(4)]
        for api in apis:  # opens a connection, so that the calls of the test do not wait for it
            await api("mutation { createUser(input: {dryRun: true}) { errors { code } } }")
        yield apis


async def post(api: Api, case: Case, key: str) -> httpx.Response:
    return await api.http.post(
        "/graphql",
        json={"query": case.document(), "variables": {"input": case.input}},
        headers={"idempotency-key": key},
    )


async def create_user(api: Api) -> Any:
    return await api("mutation { createUser(input: {}) { errors { code } } }")


async def test_concurrent_calls_in_one_process_use_one_connection(api: Api, sql: Sql) -> None:
    replays = metrics.IDEMPOTENT_REPLAYS.labels("running")
    before = replays._value.get()
    async with slow_mutation(sql):
        calls = [
            asyncio.create_task(send_with_key(api, RENAME, "k")) for _ in range(CONCURRENT_CALLS)
        ]
        await until(lambda: waiting(sql))
        # The other mutations find connections, of which there are fewer than calls.
        await asyncio.gather(*(create_user(api) for _ in range(CONCURRENT_CALLS)))
        assert await waiting(sql) == 1
        assert not any(call.done() for call in calls)
    assert await asyncio.gather(*calls) == [RENAMED] * CONCURRENT_CALLS
    assert await sql.fetchval("SELECT version FROM segments") == 2
    assert replays._value.get() - before == CONCURRENT_CALLS - 1


async def test_two_calls_wait_in_the_database_and_further_ones_are_rejected(
    processes: list[Api], sql: Sql
) -> None:
    async with slow_mutation(sql):
        calls = []
        for number, process in enumerate(processes[:3], start=1):
            calls.append(asyncio.create_task(send_with_key(process, RENAME, "k")))

            async def are_waiting(count: int = number) -> bool:
                return await waiting(sql) == count

            await until(are_waiting)
        rejected = await post(processes[3], RENAME, "k")
        assert is_unavailable(rejected)
        assert without_cost(rejected.json()) == {
            "data": {"payload": None},
            "errors": [
                {
                    "message": "A mutation with the same idempotency key is running; nothing was"
                    " changed. Retry the request to get its result.",
                    "locations": [{"line": 1, "column": 42}],
                    "path": ["payload"],
                    "extensions": {"code": "UNAVAILABLE"},
                }
            ],
        }
        # Another key is not affected, nor are mutations without a key.
        other = Case("createUser", {}, "user { id }")
        assert (await send_with_key(processes[3], other, "k2"))["user"] == {"id": "1"}
        await asyncio.gather(*(create_user(process) for process in processes))
    assert await asyncio.gather(*calls) == [RENAMED] * 3
    assert await send_with_key(processes[3], RENAME, "k") == RENAMED
    assert await sql.fetchval("SELECT version FROM segments") == 2


async def test_many_processes_may_retry_a_finished_mutation_at_once(
    processes: list[Api], sql: Sql
) -> None:
    create = Case("createUser", {}, "user { id }")
    first = await send_with_key(processes[0], create, "k")
    for _ in range(10):
        payloads = await asyncio.gather(
            *(send_with_key(process, create, "k") for process in processes)
        )
        assert payloads == [first] * len(processes)
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_concurrent_calls_of_a_rejected_mutation_are_rejected(api: Api, sql: Sql) -> None:
    outdated = RENAME._replace(input={**RENAME.input, "expectedVersion": 7})
    async with slow_mutation(sql):
        calls = [asyncio.create_task(send_with_key(api, outdated, "k")) for _ in range(3)]
        await until(lambda: waiting(sql))
        # Another mutation with the key waits for the end of the first one, and is then executed.
        rename = asyncio.create_task(send_with_key(api, RENAME, "k"))
    for payload in await asyncio.gather(*calls):
        assert [error["code"] for error in payload["errors"]] == ["VERSION_CONFLICT"]
    assert await rename == RENAMED
    reused = await send_with_key(api, outdated, "k")
    assert [error["code"] for error in reused["errors"]] == ["IDEMPOTENCY_KEY_REUSED"]


async def test_concurrent_call_with_another_input_is_rejected_after_the_first(
    api: Api, sql: Sql
) -> None:
    other = RENAME._replace(input={"slug": "A", "name": "other"})
    async with slow_mutation(sql):
        first = asyncio.create_task(send_with_key(api, RENAME, "k"))
        await until(lambda: waiting(sql))
        second = asyncio.create_task(send_with_key(api, other, "k"))
    assert await first == RENAMED
    assert [error["code"] for error in (await second)["errors"]] == ["IDEMPOTENCY_KEY_REUSED"]


async def test_crash_of_a_process_frees_the_key(processes: list[Api], sql: Sql) -> None:
    """The connection ends as at a crash, and the process retries the transaction once."""
    terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted"
    async with slow_mutation(sql):
        crashing = asyncio.create_task(post(processes[0], RENAME, "k"))
        for _ in range(2):
            await until(lambda: waiting(sql))
            await sql.fetchval(terminate)

            async def has_ended() -> bool:
                return not await waiting(sql)

            await until(has_ended)
        error = (await crashing).json()["errors"][0]
        assert error["extensions"]["code"] == "UNAVAILABLE"
        assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == 0
    assert await send_with_key(processes[1], RENAME, "k") == RENAMED
