"""Clients that lose their connection retry each mutation in another process, without Redis."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from segmentql.local.ports import free_port
from tests.conftest import PATIENCE_SECONDS, Api, Sql, empty_tables, until
from tests.e2e.conftest import RunServe
from tests.idempotency.cases import (
    CASES,
    Case,
    every_row,
    is_unavailable,
    send_with_key,
    store_rows,
)

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

pytestmark = pytest.mark.e2e

PROCESSES = 3
CONCURRENT_CALLS = 50
RETRY_SECONDS = 0.05
"""Shorter than `Retry-After`, so that many requests run at the same time."""

CHANGED_BY_ATTEMPTS = ("objects_to_delete", "idempotency_keys")
"""The tables that also have rows of calls whose transaction found the first result."""


@pytest.fixture
async def processes(run_serve: RunServe, s3: "S3Client") -> AsyncIterator[Sequence[Api]]:
    """Run three API processes, whose Redis does not run."""
    redis_url = f"redis://127.0.0.1:{free_port()}/0"
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(run_serve(SEGMENTQL_REDIS_URL=redis_url))
            for _ in range(PROCESSES)
        ]
        yield [
            Api(
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=serving.address, timeout=PATIENCE_SECONDS)
                )
            )
            for serving in started
        ]


def http_request(case: Case, key: str) -> bytes:
    body = json.dumps({"query": case.document(), "variables": {"input": case.input}}).encode()
    return (
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Idempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
    )


async def send_and_drop(api: Api, case: Case, sql: Sql) -> None:
    """Send a mutation, and close the connection after the commit without reading the response."""
    address = urlsplit(str(api.http.base_url))
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(http_request(case, "the key"))
    await until(lambda: sql.fetchval("SELECT count(*) FROM idempotency_keys"))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_retry_after_a_dropped_connection(processes: Sequence[Api], sql: Sql) -> None:
    for case in CASES.values():
        await empty_tables(sql)
        await store_rows(sql, processes[0])
        await send_and_drop(processes[0], case, sql)
        after = await every_row(sql)
        second, third = [await send_with_key(api, case, "the key") for api in processes[1:]]
        assert second == third, case.field
        assert second["errors"] == [], case.field
        assert await every_row(sql) == after, case.field


async def send_until_answered(api: Api, case: Case) -> Any:
    """Send a mutation until it gets a result; return the payload."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            response = await api.http.post(
                "/graphql",
                json={"query": case.document(), "variables": {"input": case.input}},
                headers={"idempotency-key": "the key"},
            )
            if not is_unavailable(response):
                return response.json()["data"]["payload"]
            await asyncio.sleep(RETRY_SECONDS)


async def row_counts(sql: Sql) -> dict[str, int]:
    rows = await every_row(sql, except_tables=CHANGED_BY_ATTEMPTS)
    return {table: len(stored) for table, stored in rows.items()}


async def test_concurrent_calls_have_one_effect(processes: Sequence[Api], sql: Sql) -> None:
    for case in CASES.values():
        await empty_tables(sql)
        await store_rows(sql, processes[0])
        await processes[0](case.document(), input=case.input)
        once = await row_counts(sql)
        await empty_tables(sql)
        await store_rows(sql, processes[0])
        payloads = await asyncio.gather(
            *(
                send_until_answered(processes[call % PROCESSES], case)
                for call in range(CONCURRENT_CALLS)
            )
        )
        assert payloads[0]["errors"] == [], case.field
        assert payloads == [payloads[0]] * CONCURRENT_CALLS, case.field
        assert await row_counts(sql) == once, case.field
