"""The expected response of `/readyz`, whose short probes can fail once on a busy machine."""

import asyncio
from typing import Any

from tests.conftest import PATIENCE_SECONDS, Api


async def expect_readiness(api: Api, status: int, body: dict[str, Any]) -> None:
    """Poll `/readyz`, as load balancers do, until it responds as expected.

    Raises:
        AssertionError: the last response within `PATIENCE_SECONDS` is a different one.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_SECONDS
    while True:
        response = await api.http.get("/readyz")
        found = (response.status_code, response.json())
        if found == (status, body) or loop.time() > end:
            break
        await asyncio.sleep(0.05)
    assert found == (status, body)
