"""Steps that do not wait for each other."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_concurrently(*steps: Coroutine[Any, Any, None]) -> None:
    """Take steps side by side. Where one fails the others are cancelled, and its error is raised.

    Whatever happens, none of them goes on after this returns.
    """
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
