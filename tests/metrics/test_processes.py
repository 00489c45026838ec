"""Metrics of several processes add up, and ended processes have no gauges."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from segmentql.adapters.database import Database
from segmentql.adapters.metrics_endpoint import metrics_response
from segmentql.local.ports import free_port
from segmentql.settings import Settings
from tests.conftest import Api, RunWorker, Sql, environment, until
from tests.metrics.samples import Samples, samples, samples_of
from tests.operations import make_segments, update_user_segments

TOKEN = "metrics-token-of-16"
DELETE_BETA = 'mutation { deleteSegment(input: {slug: "beta"}) { deletedId } }'

COUNT_AND_DIE = """
import os, signal
from segmentql import metrics
metrics.POOL_CONNECTIONS_USED.labels("segmentql api").set(3)
metrics.JOINS.labels("MANUAL").inc(5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ended_process_keeps_counters_but_not_gauges(settings: Settings, tmp_path: Path) -> None:
    for _ in range(2):
        died = subprocess.run(
            [sys.executable, "-c", COUNT_AND_DIE],
            env=environment(settings, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)),
            check=False,
        )
        assert died.returncode == -9
    assert list(tmp_path.glob("gauge_livesum_*.db"))
    response: Response = metrics_response(settings.model_copy(update={"metrics_dir": tmp_path}))
    assert b'segmentql_joins_total{cause="MANUAL"} 10.0\n' in response.body
    assert b"segmentql_pool_connections_used{" not in response.body
    assert list(tmp_path.glob("gauge_livesum_*.db")) == []


async def test_statements_and_the_connection_pool_are_measured(
    api: Api, database: Database, settings: Settings
) -> None:
    async def samples_read() -> Samples:
        return await samples(api.http)

    def statements(counts: Samples, kind: str) -> float:
        return counts.get(f'segmentql_statement_duration_seconds_count{{kind="{kind}"}}', 0)

    await api("{ user(id: 1) { id } }")
    before = await samples_read()
    alone = statements(await samples_read(), "read") - statements(before, "read")
    await make_segments(api, "beta")
    between = await samples_read()
    await update_user_segments(api, 1, add=["beta"])
    after = await samples_read()
    # The lock and the write; then the payload's segments and memberships.
    assert statements(after, "write") - statements(between, "write") == 2
    assert statements(after, "read") - statements(between, "read") - alone == 2
    pool = 'segmentql_pool_connections_{}{{pool="segmentql api"}}'
    assert after[pool.format("limit")] == settings.database_pool_size
    assert after[pool.format("used")] == 0
    assert after['segmentql_pool_wait_seconds_count{pool="segmentql api"}'] > 0
    async with database.read() as session:
        await session.connection()
        assert (await samples_read())[pool.format("used").replace("segmentql api", "tests")] == 1


async def test_worker_with_a_port_serves_probes_and_metrics(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segments(api, "beta")
    address = f"http://127.0.0.1:{(port := free_port())}"
    async with (
        run_worker(SEGMENTQL_WORKER_PORT=str(port)),
        httpx.AsyncClient(base_url=address) as client,
    ):

        async def responds() -> bool:
            try:
                return bool((await client.get("/healthz")).json() == {"status": "ok"})
            except httpx.TransportError:
                return False

        await until(responds)
        await sql.execute("ALTER TABLE exclusions RENAME TO lost")
        try:
            await api(DELETE_BETA)

            async def was_retried() -> bool:
                name = 'segmentql_actor_retries_total{actor="record_segment_leaves"}'
                return (await samples(client)).get(name, 0) >= 1

            await until(was_retried)
        finally:
            await sql.execute("ALTER TABLE lost RENAME TO exclusions")

        async def is_recorded() -> bool:
            return bool(await sql.fetchval("SELECT leaves_recorded_at FROM segments"))

        await until(is_recorded)
        samples_read = await samples(client)
        actor = 'actor="record_segment_leaves"'
        runs = samples_of(samples_read, "segmentql_actor_runs_total")
        assert runs[f'{actor},outcome="failed"'] >= 1
        starts = samples_read[f"segmentql_actor_starts_total{{{actor}}}"]
        assert starts >= runs[f'{actor},outcome="failed"'] + 1
        assert samples_read["segmentql_scheduler_leader"] == 1
        assert samples_of(samples_read, "segmentql_users") == {}  # only the API exports it


async def test_worker_metrics_need_the_metrics_token(run_worker: RunWorker) -> None:
    port = free_port()
    settings = {"SEGMENTQL_AUTH": "required", "SEGMENTQL_METRICS_TOKEN": TOKEN}
    async with (
        run_worker(SEGMENTQL_WORKER_PORT=str(port), **settings),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        async def status(**headers: str) -> int:
            try:
                return (await client.get("/metrics", headers=headers)).status_code
            except httpx.TransportError:
                return 0

        async def listens() -> bool:
            return bool(await status())

        await until(listens)
        assert await status() == 401
        assert await status(authorization="Bearer wrong") == 401
        assert await status(authorization=f"Bearer {TOKEN}") == 200


def worker_output(settings: Settings, **changes: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "segmentql", "worker"],
        env=environment(settings, **changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_worker_with_a_used_port_does_not_start(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, stderr = worker_output(settings, SEGMENTQL_WORKER_PORT=str(port))
    assert (code, stderr) == (
        1,
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n",
    )


@pytest.mark.slow
def test_worker_with_open_metrics_does_not_start(settings: Settings) -> None:
    code, stderr = worker_output(
        settings, SEGMENTQL_WORKER_PORT=str(free_port()), SEGMENTQL_HOST="192.0.2.1"
    )
    assert code == 1
    assert "SEGMENTQL_AUTH is off" in stderr
