"""A Prometheus that scrapes a running service with the configuration of `monitoring/`."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from segmentql.local.ports import free_port
from tests.conftest import until
from tests.test_monitoring import MONITORING

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
TOKEN = "metrics-token-of-16"
SCRAPE_SECONDS = 1


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
