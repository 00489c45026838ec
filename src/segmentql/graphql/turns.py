"""Taking turns: work that takes long gives the event loop back again and again.

So what is read by the thousand is not felt by those who ask for one, and takes longer itself.
"""

import asyncio
import time
from typing import Final

TURN_SECONDS: Final = 0.004
"""How long one request's work goes on before others have a turn."""

REST: Final = 2
"""How many times as long as its turn it rests then, where others have something to do."""

BUSY_SECONDS: Final = 0.0005
"""They have when the event loop takes so long to come back."""


async def let_others() -> None:
    """Give the event loop a turn, and time to spare where it is busy."""
    began = time.perf_counter()
    await asyncio.sleep(0)
    if time.perf_counter() - began > BUSY_SECONDS:
        await asyncio.sleep(REST * TURN_SECONDS)
