"""The work of an attempt, with heartbeats that extend its lease meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


async def run_with_heartbeats(
    work: Coroutine[Any, Any, None],
    heartbeat: Callable[[], Awaitable[bool]],
    *,
    interval_seconds: float,
) -> bool:
    """Run the work of an attempt until its end, or until the attempt has lost its lease.

    Args:
        work: The work. If the lease is lost, it is cancelled.
        heartbeat: A function that extends the lease. It returns False or raises an error if the
            attempt does not hold the lease any more.
        interval_seconds: The time between two heartbeats.

    Returns:
        Whether the work has ended. If not, it was cancelled.

    Raises:
        BaseException: what the work or a heartbeat raised.
    """

    async def send_heartbeats() -> None:
        holds_lease = True
        while holds_lease:
            await asyncio.sleep(interval_seconds)
            holds_lease = await heartbeat()

    working, heartbeats = asyncio.create_task(work), asyncio.create_task(send_heartbeats())
    tasks = {working, heartbeats}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return not working.cancelled()
