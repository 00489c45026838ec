"""The containers of the chart run as processes: their commands, environments, probes and metrics.

There is no cluster. The test starts each container's command with its environment only, as a
kubelet would, and sends the requests of its probes.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from segmentql.local import LocalServers
from segmentql.local.ports import free_port
from segmentql.settings import PREFIX, Settings
from tests.conftest import until
from tests.databases import blank_database
from tests.kubernetes.charts import container, environment, one, pod

FIRST_KEY = f"sgql_{'k' * 12}_{'0' * 64}"
METRICS_TOKEN = "a-token-for-metrics"
VIEWER = '{"query": "{ viewer { role } }"}'


@dataclass(frozen=True)
class Containers:
    """The containers of the chart with the settings of the test's servers."""

    settings: Settings
    folder: Path
    changes: tuple[str, ...]

    def command(self, component: str) -> list[str]:
        words = container("default", component, *self.changes)["args"]
        return [sys.executable, "-m", "segmentql", *words]

    def environment(self, component: str) -> dict[str, str]:
        """Return the variables of the container; those of Secrets have the test's values."""
        store = self.settings.store
        secrets = {
            "SEGMENTQL_DATABASE_URL": self.settings.database_url,
            "SEGMENTQL_MIGRATION_DATABASE_URL": self.settings.owner_database_url,
            "SEGMENTQL_REDIS_URL": self.settings.redis_url,
            "SEGMENTQL_S3_ACCESS_KEY": store.access_key,
            "SEGMENTQL_S3_SECRET_KEY": store.secret_key,
            "SEGMENTQL_METRICS_TOKEN": METRICS_TOKEN,
            "SEGMENTQL_FIRST_KEY": FIRST_KEY,
        }
        variables = {
            name: value if isinstance(value, str) else secrets[name]
            for name, value in environment("default", component, *self.changes).items()
        }
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        return inherited | variables

    async def _start(self, component: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(component),
            env=self.environment(component),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, component: str) -> str:
        """Run the container of a job, which must succeed, and return its output."""
        process = await self._start(component)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    @asynccontextmanager
    async def running(self, component: str) -> AsyncIterator[None]:
        """Run the container of a Deployment; it must stop by SIGTERM in its grace period."""
        process = await self._start(component)
        assert process.stdout
        reading = asyncio.create_task(process.stdout.read())
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            spec = pod("default", component, *self.changes)["spec"]
            async with asyncio.timeout(spec["terminationGracePeriodSeconds"]):
                output = (await reading).decode()
                await process.wait()
        assert process.returncode == 0, output

    def url(self, component: str, port_name: str, path: str) -> str:
        """Return the URL for a path at a port of the container, by its name."""
        ports: Mapping[str, int] = {
            port["name"]: port["containerPort"]
            for port in container("default", component, *self.changes)["ports"]
        }
        return f"http://127.0.0.1:{ports[port_name]}{path}"

    def probes(self, component: str) -> dict[str, str]:
        found: Mapping[str, Any] = container("default", component, *self.changes)
        return {
            name: self.url(component, probe["port"], probe["path"])
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
            if name in found
            for probe in [found[name]["httpGet"]]
        }


async def _responds(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow  # it starts six processes
@pytest.mark.usefixtures("s3")
async def test_containers_run_with_their_environment_only(
    servers: LocalServers, tmp_path: Path
) -> None:
    async with blank_database(servers) as settings, httpx.AsyncClient(timeout=60) as client:
        containers = Containers(
            settings,
            tmp_path,
            (
                "listenAddress=127.0.0.1",
                f"api.port={free_port()}",
                f"worker.port={free_port()}",
                f"settings.SEGMENTQL_S3_ENDPOINT_URL={settings.store.endpoint_url}",
                f"settings.SEGMENTQL_S3_BUCKET={settings.s3_bucket}",
                *("firstKey.enabled=true", "bucket.enabled=true"),
            ),
        )
        await containers.run("migrate")
        assert "stored the first key" in await containers.run("first-key")
        await containers.run("bucket")
        async with containers.running("api"), containers.running("worker"):
            for component, count in (("api", 3), ("worker", 2)):
                probes = containers.probes(component)
                assert len(probes) == count
                for url in probes.values():
                    await until(partial(_responds, client, url))
            assert "ok" in await containers.run("doctor")
            response = await client.post(
                containers.url("api", "http", "/graphql"),
                content=VIEWER,
                headers={
                    "authorization": f"Bearer {FIRST_KEY}",
                    "content-type": "application/json",
                },
            )
            assert response.json()["data"] == {"viewer": {"role": "ADMIN"}}
            for component, kind, field in (
                ("api", "ServiceMonitor", "endpoints"),
                ("worker", "PodMonitor", "podMetricsEndpoints"),
            ):
                [endpoint] = one("everything", kind, component)["spec"][field]
                url = containers.url(component, endpoint["port"], endpoint["path"])
                scheme = endpoint["authorization"].get("type", "Bearer")  # the operator's default
                assert (await client.get(url)).status_code == 401
                token = {"authorization": f"{scheme} {METRICS_TOKEN}"}
                assert "segmentql_" in (await client.get(url, headers=token)).text
