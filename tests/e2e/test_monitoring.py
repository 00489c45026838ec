"""A real Prometheus scrapes a real `segmentql up` during many events.

Afterwards every panel of every dashboard has data, and every alert reads existing series.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from segmentql.local.ports import free_port
from segmentql.settings import child_environment
from tests.conftest import until
from tests.e2e.monitored_events import KEY, Events
from tests.e2e.prometheus import PROMETHEUS, PROMTOOL, SCRAPE_SECONDS, TOKEN, Prometheus, prometheus
from tests.e2e.up import NONE_OUTSIDE, running
from tests.promql import reads
from tests.test_monitoring import BUILD, MONITORING, RULES

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
