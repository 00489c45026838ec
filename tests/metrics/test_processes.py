"""Metrics of several processes: what they counted adds up, and the dead have nothing in use."""

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


def test_the_dead_have_nothing_in_use_but_what_they_counted_stays(
    settings: Settings, tmp_path: Path
) -> None:
    for _ in range(2):
        died = subprocess.run(
            [sys.executable, "-c", COUNT_AND_DIE],
            env=environment(settings, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)),
            check=False,
        )
        assert died.returncode == -9
    assert list(tmp_path.glob("gauge_livesum_*.db"))
    told: Response = metrics_response(settings.model_copy(update={"metrics_dir": tmp_path}))
    assert b'segmentql_joins_total{cause="MANUAL"} 10.0\n' in told.body
    assert b"segmentql_pool_connections_used{" not in told.body
    assert list(tmp_path.glob("gauge_livesum_*.db")) == []


async def test_statements_and_the_pool_are_measured(
    api: Api, database: Database, settings: Settings
) -> None:
    async def read() -> Samples:
        return await samples(api.http)

    def statements(told: Samples, kind: str) -> float:
        return told.get(f'segmentql_statement_duration_seconds_count{{kind="{kind}"}}', 0)

    await api("{ user(id: 1) { id } }")
    before = await read()
    alone = statements(await read(), "read") - statements(before, "read")
    await make_segments(api, "beta")
    between = await read()
    await update_user_segments(api, 1, add=["beta"])
    after = await read()
    # The lock and the write; then the payload's segments and memberships.
    assert statements(after, "write") - statements(between, "write") == 2
    assert statements(after, "read") - statements(between, "read") - alone == 2
    pool = 'segmentql_pool_connections_{}{{pool="segmentql api"}}'
    assert after[pool.format("limit")] == settings.database_pool_size
    assert after[pool.format("used")] == 0
    assert after['segmentql_pool_wait_seconds_count{pool="segmentql api"}'] > 0
    async with database.read() as session:
        await session.connection()
        assert (await read())[pool.format("used").replace("segmentql api", "tests")] == 1


async def test_a_worker_with_a_port_tells_how_it_is_and_what_it_did(
    api: Api, sql: Sql, run_worker: RunWorker
) -> None:
    await make_segments(api, "beta")
    address = f"http://127.0.0.1:{(port := free_port())}"
    async with (
        run_worker(SEGMENTQL_WORKER_PORT=str(port)),
        httpx.AsyncClient(base_url=address) as client,
    ):

        async def answers() -> bool:
            try:
                return bool((await client.get("/healthz")).json() == {"status": "ok"})
            except httpx.TransportError:
                return False

        await until(answers)
        await sql.execute("ALTER TABLE exclusions RENAME TO lost")
        try:
            await api(DELETE_BETA)

            async def retried() -> bool:
                name = 'segmentql_actor_retries_total{actor="record_segment_leaves"}'
                return (await samples(client)).get(name, 0) >= 1

            await until(retried)
        finally:
            await sql.execute("ALTER TABLE lost RENAME TO exclusions")

        async def tidied() -> bool:
            return bool(await sql.fetchval("SELECT leaves_recorded_at FROM segments"))

        await until(tidied)
        read = await samples(client)
        actor = 'actor="record_segment_leaves"'
        runs = samples_of(read, "segmentql_actor_runs_total")
        assert runs[f'{actor},outcome="failed"'] >= 1
        starts = read[f"segmentql_actor_starts_total{{{actor}}}"]
        assert starts >= runs[f'{actor},outcome="failed"'] + 1
        assert read["segmentql_scheduler_leader"] == 1
        assert samples_of(read, "segmentql_users") == {}  # the API's to ask


async def test_a_workers_metrics_have_the_same_token_as_the_apis(run_worker: RunWorker) -> None:
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


def worker_says(settings: Settings, **changes: str) -> tuple[int, str]:
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
def test_a_worker_whose_port_is_taken_does_not_start(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = worker_says(settings, SEGMENTQL_WORKER_PORT=str(port))
    assert (code, said) == (
        1,
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n",
    )


@pytest.mark.slow
def test_a_worker_that_everybody_could_ask_does_not_start(settings: Settings) -> None:
    code, said = worker_says(
        settings, SEGMENTQL_WORKER_PORT=str(free_port()), SEGMENTQL_HOST="192.0.2.1"
    )
    assert code == 1
    assert "SEGMENTQL_AUTH is off" in said
