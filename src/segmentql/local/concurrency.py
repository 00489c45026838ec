"""Runs coroutines concurrently."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_concurrently(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines concurrently. If one fails, cancel the others and raise its error.

    No coroutine is still running when this function returns or raises.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
