"""Three API processes and three workers restart one by one under load, behind nginx."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from segmentql.adapters.database import Database
from segmentql.local.orphans import ON_LINUX
from segmentql.settings import Settings
from tests.conftest import Sql
from tests.e2e.fleet import ServiceProcess, started
from tests.e2e.proxies import running_proxy, skip_if_missing
from tests.e2e.service_load import Load, StrictConsumer, store_load_rows
from tests.e2e.test_feed import check
from tests.keys.clients import make_key

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="needs all loopback addresses, which Linux has"),
]

LOAD_SECONDS: Final = 60
DRAIN_SECONDS: Final = 5
HOSTS: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
REQUESTS_BETWEEN: Final = 50


@pytest.fixture
async def fleet(
    settings: Settings, sql: Sql, s3: "S3Client", tmp_path: Path
) -> AsyncIterator[Sequence[ServiceProcess]]:
    """Run three API processes and three workers."""
    skip_if_missing("nginx")
    changes = {"SEGMENTQL_AUTH": "required", "SEGMENTQL_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    processes = [
        ServiceProcess(
            command, settings, tmp_path / f"{command}-{host}.log", SEGMENTQL_HOST=host, **changes
        )
        for command in ("serve", "worker")
        for host in HOSTS
    ]
    async with started(processes):
        yield processes


async def test_rolling_restart_fails_no_request_and_loses_no_job(
    fleet: Sequence[ServiceProcess], database: Database, sql: Sql, tmp_path: Path
) -> None:
    position = await store_load_rows(sql)
    key = await make_key(database, "ADMIN")
    folder = tmp_path / "nginx"
    folder.mkdir()
    apis, workers = fleet[:3], fleet[3:]
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(
            running_proxy("nginx", folder, [api.address for api in apis])
        )
        client = await stack.enter_async_context(proxy.client(key.token))
        options = {
            "verify": proxy.tls(),
            "headers": {"authorization": f"Bearer {key.token}"},
            "trust_env": False,
        }
        consumers = [
            StrictConsumer(f"consumer {number}", [proxy.url], number > 0, client_options=options)
            for number in range(4)
        ]
        load = Load([client], consumers=consumers)
        clock = asyncio.get_running_loop()
        ends_at = clock.time() + LOAD_SECONDS
        async with load.running():
            await load.works(REQUESTS_BETWEEN)
            async with asyncio.TaskGroup() as group:
                for processes in (apis, workers):
                    group.create_task(_restart_one_by_one(processes, load))
            while clock.time() < ends_at:
                await load.works(REQUESTS_BETWEEN)
        failures = [*load.failures, *(text for each in consumers for text in each.failures)]
        assert failures == []
        # Each stream was open at the restart of at least one process.
        assert min(each.ended for each in consumers if each.is_stream) > 0
        await load.check(sql)
        await check(consumers, sql, after=position)
    sys.stdout.write(f"{load.requests} requests, jobs: {load.finished_jobs}\n")


async def _restart_one_by_one(processes: Sequence[ServiceProcess], load: Load) -> None:
    for process in processes:
        await process.restart()
        await load.works(REQUESTS_BETWEEN)
