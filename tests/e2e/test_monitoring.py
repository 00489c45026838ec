"""A real Prometheus scrapes a real `segmentql up` during many events.

Afterwards every panel of every dashboard has data, and every alert reads existing series.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from segmentql.local.ports import free_port
from segmentql.settings import child_environment
from tests.conftest import until
from tests.e2e.up import NONE_OUTSIDE, Up, running
from tests.promql import reads
from tests.test_monitoring import BUILD, MONITORING, RULES

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
TOKEN = "metrics-token-of-16"
KEY = f"sgql_firstkeyfir0_{'5e' * 32}"
SCRAPE_SECONDS = 1
RATE_INTERVAL = "10s"
RANGE = "1h"
NEEDS_MORE_THAN_UP = {
    "Reads at the primary instead of the replica",  # a replica
    "Beginning of history",  # months that were dropped
}
"""The panels that have no data of a new `segmentql up`."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        PROMETHEUS is None or PROMTOOL is None,
        reason="no Prometheus with promtool on PATH (Debian: apt-get install prometheus)",
    ),
]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_accepts_the_configuration(arguments: tuple[str, ...]) -> None:
    result = subprocess.run(
        [str(PROMTOOL), *arguments],
        cwd=MONITORING / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


class Prometheus:
    """A running Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query_api(self, path: str, **parameters: str | list[str]) -> Any:
        response = (await self._client.get(f"/api/v1/{path}", params=parameters)).json()
        assert response["status"] == "success", response
        return response["data"]

    async def is_ready(self) -> bool:
        # It accepts connections before it can answer queries.
        try:
            return (await self._client.get("/-/ready")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def has_scraped(self, jobs: int) -> bool:
        targets = (await self.query_api("targets"))["activeTargets"]
        return [target["health"] for target in targets] == ["up"] * jobs

    async def shows(self, expression: str, seconds: int = 120) -> bool:
        """Return whether an expression had a numeric value at any recent moment."""
        (at,) = [float((await self.query_api("query", query="time()"))["result"][0])]
        result = await self.query_api(
            "query_range",
            query=expression,
            start=str(at - seconds),
            end=str(at),
            step=str(SCRAPE_SECONDS),
        )
        values = [value for series in result["result"] for _, value in series["values"]]
        return any(value != "NaN" for value in values)


@asynccontextmanager
async def prometheus(folder: Path, targets: dict[str, int]) -> AsyncIterator[Prometheus]:
    """Run Prometheus with our configuration, except the targets, the token and the interval."""
    configuration = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
    shutil.copy(MONITORING / "prometheus/alerts.yml", folder)
    (folder / "token").write_text(TOKEN)
    pace = f"{SCRAPE_SECONDS}s"
    configuration["global"] = {"scrape_interval": pace, "evaluation_interval": pace}
    for job in configuration["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(folder / "token")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(PROMETHEUS),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            running_one = Prometheus(client)
            await until(running_one.is_ready)
            await until(lambda: running_one.has_scraped(len(targets)))
            yield running_one
    finally:
        process.terminate()
        await process.wait()


class Events:
    """Causes one event of each kind on a small scale."""

    def __init__(self, up: Up, client: httpx.AsyncClient) -> None:
        self._up = up
        self._client = client

    async def send(self, query: str, key: str = KEY, **headers: str) -> Any:
        response = await self._client.post(
            "/graphql", json={"query": query}, headers={"authorization": f"Bearer {key}", **headers}
        )
        return response.json()

    async def scraped(self, slice_: float = 3 * SCRAPE_SECONDS) -> None:
        """Send requests during `slice_`, so that Prometheus scrapes the current state."""
        end_time = asyncio.get_running_loop().time() + slice_
        while asyncio.get_running_loop().time() < end_time:
            await self.send("query Which { user(id: 1) { segments { slug } } }")
            await asyncio.sleep(0.1)

    async def read_and_change(self) -> None:
        for number in range(1, 21):
            await self.send(
                f"mutation {{ createUser(input: {{id: {number}}}) {{ user {{ id }} }} }}"
            )
        for slug in ("hand", "gone"):
            await self.send(
                f'mutation {{ createSegment(input: {{slug: "{slug}"}}) {{ segment {{ id }} }} }}'
            )
        add = 'mutation {{ updateUserSegments(input: {{userId: {}, add: ["hand", "gone"]{}}})'
        add += " {{ segmentsAdded }} }}"
        await self.send(add.format(1, ", ttlSeconds: 1"))
        await self.send(add.format(2, ""))
        await self.send("{ user(id: 0) { id } }")  # BAD_REQUEST
        await self.send("{ nothing }")  # rejected
        await self.send("{ user(id: 1) { id } }", key=f"sgql_{'z' * 12}_{'0' * 64}")
        await self.send(
            "mutation { createReport(input: {year: 2024, month: 3, waitSeconds: 30})"
            " { report { status } } }"
        )

    async def export_and_import(self) -> None:
        """Make an export, and an import from a segment."""
        await self.send(
            'mutation { createSegment(input: {slug: "copied"}) { segment { id } } }',
        )
        await self.send(
            'mutation { createExport(input: {slug: "hand", waitSeconds: 30})'
            " { export { status } } }"
        )
        created = await self.send(
            'mutation { createImport(input: {slug: "copied",'
            ' source: {segments: {anyOf: ["hand"]}}}) { import { id } } }'
        )
        import_id = created["data"]["createImport"]["import"]["id"]
        await self.send(
            f'mutation {{ startImport(input: {{id: "{import_id}", waitSeconds: 30}})'
            " { import { status } } }"
        )

    async def follow_changes(self) -> None:
        """Open a subscription, receive a change, and end it."""
        headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
        subscription = {"query": "subscription { changes { events { __typename } } }"}
        async with self._client.stream(
            "POST", "/graphql", json=subscription, headers=headers
        ) as response:
            await self.send(
                'mutation { updateUserSegments(input: {userId: 5, add: ["hand"]})'
                " { segmentsAdded } }"
            )
            async for line in response.aiter_lines():
                if "MembershipEvent" in line:
                    break
            await self.scraped()
        await self.send("{ changes(start: EARLIEST) { events { __typename } } }")

    async def repeat_mutation(self) -> None:
        create = "mutation { createUser(input: {id: 100}) { user { id } } }"
        for _ in range(2):
            await self.send(create, **{"idempotency-key": "repeated"})

    async def send_malformed_request(self) -> None:
        """Send bytes that are not HTTP, so that the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._up.port)
        writer.write(b"not HTTP\r\n\r\n")
        await reader.read()
        writer.close()

    async def exceed_rate_limit(self) -> None:
        """Exceed the rate limit of one key by pipelined requests, which cost the client little.

        The server accepts nine at a time on a connection.
        """
        body = b'{"query": "query Burst { __typename }"}'
        request = (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

        async def send_nine() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._up.port)
            try:
                writer.write(request * 9)
                received = b""
                while received.count(b"HTTP/1.1 ") < 9:
                    received += await reader.readexactly(1)
                    received += await reader.read(65536)
                return received
            finally:
                writer.close()

        async def one_is_rejected() -> bool:
            answers = await asyncio.gather(*(send_nine() for _ in range(110)))
            return b" 429 " in b"".join(answers)

        await until(one_is_rejected)

    async def suspend_worker_during_rollout(self) -> None:
        worker = self._up.pid_of("worker")
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        try:
            await self.send(
                'mutation { createSegment(input: {slug: "all", rollout: {percent: 100}})'
                " { segment { id } } }"
            )
            await self.scraped()
        finally:
            os.kill(worker, signal.SIGCONT)

    async def cause_faults(self) -> None:
        """Cause a failing job and a failing check of the scheduler."""
        running_settings = json.loads((self._up.data / "run/settings.json").read_text())
        owner = await asyncpg.connect(running_settings["migration_database_url"])
        renamed_tables = {"exclusions": "lost_exclusions", "reports": "lost_reports"}
        try:
            for table, new_name in renamed_tables.items():
                await owner.execute(f"ALTER TABLE {table} RENAME TO {new_name}")
            await self.send('mutation { deleteSegment(input: {slug: "gone"}) { deletedId } }')
            await self.scraped()
        finally:
            for table, new_name in renamed_tables.items():
                await owner.execute(f"ALTER TABLE {new_name} RENAME TO {table}")
            await owner.close()

    async def suspend_redis(self) -> None:
        redis = self._up.pid_of("redis")
        assert redis is not None
        os.kill(redis, signal.SIGSTOP)
        try:
            await self.send(
                'mutation { updateUserSegments(input: {userId: 3, add: ["hand"], ttlSeconds: 1})'
                " { segmentsAdded } }"
            )
            await self.scraped(6 * SCRAPE_SECONDS)
        finally:
            os.kill(redis, signal.SIGCONT)

    async def cause_all(self) -> None:
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.read_and_change,
            self.scraped,
            self.suspend_worker_during_rollout,
            self.cause_faults,
            self.suspend_redis,
            self.scraped,
            self.export_and_import,
            self.follow_changes,
            self.repeat_mutation,
            self.send_malformed_request,
            self.exceed_rate_limit,
        )
        for step in steps:
            await step()


async def test_panels_and_alerts_read_data_of_a_running_service(home: Path, tmp_path: Path) -> None:
    worker_port = free_port()
    settings = {
        "SEGMENTQL_AUTH": "required",
        "SEGMENTQL_FIRST_KEY": KEY,
        "SEGMENTQL_METRICS_TOKEN": TOKEN,
        "SEGMENTQL_RATE_PER_SECOND": "200",
        "SEGMENTQL_WORKER_PORT": str(worker_port),
    }
    async with running(home, port=None, **settings) as up:
        await up.wait_for_output("ready after")
        ensuring = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segmentql", "keys", "ensure-first", "--data-dir", "data"),
            cwd=home,
            env=child_environment({**NONE_OUTSIDE, **settings}),
        )
        assert await ensuring.wait() == 0
        targets = {"segmentql-api": up.port, "segmentql-worker": worker_port}
        address = f"http://127.0.0.1:{up.port}"
        async with (
            prometheus(tmp_path, targets) as scraping,
            httpx.AsyncClient(base_url=address, timeout=60) as client,
        ):
            story = Events(up, client)
            await story.cause_all()
            queries = {
                f"{name}: {panel.title}: {query}": query.replace(
                    "$__rate_interval", RATE_INTERVAL
                ).replace("$__range", RANGE)
                for name, (_, panels) in BUILD.DASHBOARDS.items()
                for panel in panels
                if panel.title not in NEEDS_MORE_THAN_UP
                for query, _ in panel.queries
            }

            async def empty_panels() -> list[str]:
                return [
                    panel_name
                    for panel_name, query in queries.items()
                    if not await scraping.shows(query)
                ]

            async def all_panels_have_data() -> bool:
                await story.scraped(SCRAPE_SECONDS)
                return not await empty_panels()

            try:
                await until(all_panels_have_data)
            except TimeoutError:
                assert await empty_panels() == []
            await _assert_alerts_read_existing_series(scraping)


async def _assert_alerts_read_existing_series(scraping: Prometheus) -> None:
    groups = (await scraping.query_api("rules"))["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert loaded.keys() == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in loaded.values()} == {"ok"}
    for rule in RULES:
        names, labels = reads(rule["expr"])
        borne: set[str] = set()
        for name in names:
            series = await scraping.query_api(
                "series", **{"match[]": f'{{__name__=~"{name}(_bucket)?"}}'}
            )
            assert series, (rule["alert"], name)
            borne.update(*series)
        assert labels <= borne, rule["alert"]
