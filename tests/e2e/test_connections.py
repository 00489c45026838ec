"""The API responds despite silent connections and few file descriptors, and logs the shortage."""

import asyncio
import os
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from segmentql.local.orphans import ON_LINUX
from tests.conftest import until
from tests.e2e.conftest import RunServe, Serving

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="limits a process' file descriptors by prlimit"),
]

SMALL_READ = {"query": "{ user(id: 1) { segments { slug } } }"}


def lines(log: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines()]


async def small_reads(serving: Serving, *, count: int) -> tuple[Counter[int], list[float]]:
    """Send reads, each on a new connection; return their statuses and their times in seconds."""
    statuses: Counter[int] = Counter()
    times = []
    for _ in range(count):
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=serving.address, timeout=5) as client:
            statuses[(await client.post("/graphql", json=SMALL_READ)).status_code] += 1
        times.append(time.monotonic() - began)
    return statuses, sorted(times)


async def silent_connections(serving: Serving, count: int) -> list[asyncio.StreamWriter]:
    url = httpx.URL(serving.address)
    opened = [await asyncio.open_connection(url.host, url.port) for _ in range(count)]
    return [writer for _, writer in opened]


async def test_400_silent_connections_at_256_files_block_no_client(
    run_serve: RunServe, tmp_path: Path
) -> None:
    async with run_serve(open_files=256) as serving:
        lowered = [
            line
            for line in lines(tmp_path / "serve.log")
            if line["event"] == "max_connections_lowered"
        ]
        assert [(line["wanted"], line["admitted"]) for line in lowered] == [(1000, 156)]
        silent = await silent_connections(serving, 400)
        during_flood, _ = await small_reads(serving, count=20)
        assert set(during_flood) <= {200, 503}
        await asyncio.sleep(1.1)
        statuses, times = await small_reads(serving, count=50)
        assert statuses == {200: 50}
        assert times[-1] < 1
        for writer in silent:
            writer.close()
    counted = Counter(line.get("reason") for line in lines(tmp_path / "serve.log"))
    assert counted["full"] >= 1
    assert counted["evicted"] >= 1


async def test_connection_outlives_five_idle_seconds_by_default(serve: Serving) -> None:
    """Proxies keep connections for a minute and expect this; the test is slow because it waits."""
    forever = httpx.Limits(keepalive_expiry=None)
    async with httpx.AsyncClient(base_url=serve.address, limits=forever) as client:
        for pause in (7, 0):
            response = await client.post("/graphql", json=SMALL_READ)
            assert response.status_code == 200
            await asyncio.sleep(pause)
        (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
        assert "Request Count: 2" in repr(connection)


async def test_process_without_free_descriptors_logs_it_and_recovers(
    serve: Serving, tmp_path: Path
) -> None:
    pid = serve.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{pid}/fd"))
    limit_of_files = open_now + 20
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit_of_files, before[1]))
    silent = await silent_connections(serve, 60)

    async def is_logged() -> bool:
        events = lines(tmp_path / "serve.log")
        return any(line.get("reason") == "no_descriptor" for line in events)

    await until(is_logged)
    for writer in silent:
        writer.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    statuses, _ = await small_reads(serve, count=20)
    assert statuses == {200: 20}
