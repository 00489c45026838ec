"""Ten thousand generated requests do not grow the memory of the server."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from segmentql.local.orphans import ON_LINUX
from tests.conftest import Sql, empty_tables
from tests.e2e.conftest import Serving
from tests.fuzz.request_strategies import requests
from tests.fuzz.requests import CORPUS, HttpRequest, read
from tests.fuzz.response_checks import EffectMonitor
from tests.sample_data import SAMPLE_DATA

log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each request

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ON_LINUX, reason="looks at the process' memory in Linux' /proc"),
]

ROUNDS, REQUESTS_A_ROUND = 20, 500
WARM_ROUNDS = 10
"""The rounds after which the bounded caches are full."""

MAY_GROW_MEGABYTES = 16
ANY_REQUEST = st.one_of(requests(GenerationMode.POSITIVE), requests(GenerationMode.NEGATIVE))


def megabytes(pid: int) -> int:
    """Return the current resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (resident,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident) // 1024


def generated_requests(count: int) -> list[HttpRequest]:
    """Return `count` requests, different ones for each seed."""
    batch: list[HttpRequest] = []

    @profile(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sent=ANY_REQUEST)
    def collect(sent: HttpRequest) -> None:
        batch.append(sent)

    collect()
    return batch


async def test_ten_thousand_requests_do_no_harm_and_leak_no_memory(
    serve: Serving, sql: Sql
) -> None:
    used: list[int] = []
    async with httpx.AsyncClient(base_url=serve.address, timeout=90) as client:
        monitor = EffectMonitor(client, sql)
        for _ in range(ROUNDS):
            await empty_tables(sql)
            await sql.execute(SAMPLE_DATA)
            monitor.forget()
            for sent in await asyncio.to_thread(generated_requests, REQUESTS_A_ROUND):
                await monitor.send(sent)
            used.append(megabytes(serve.process.pid))
        for file in sorted(CORPUS.glob("*.http")):
            await monitor.send(read(file))
        assert (await client.get("/readyz")).status_code == 200
    log.info("%s executed, %s changed rows; MB: %s", monitor.executed, monitor.changes, used)
    assert monitor.sent >= ROUNDS * REQUESTS_A_ROUND
    assert monitor.executed > monitor.sent / 10
    assert monitor.changes > monitor.sent / 200
    assert used[-1] - used[WARM_ROUNDS - 1] < MAY_GROW_MEGABYTES, used
