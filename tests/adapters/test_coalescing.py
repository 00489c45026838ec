"""Messages that arrive at about the same time share a run of their job."""

import asyncio

import pytest

from segmentql.adapters.coalescing import CoalescedWork


class Work:
    """Work that ends when it is allowed to."""

    def __init__(self) -> None:
        self.runs = 0
        self.may_end = asyncio.Event()

    async def __call__(self, context: str) -> None:
        self.runs += 1
        await self.may_end.wait()


async def test_messages_share_the_run_that_has_not_begun() -> None:
    """The second run waits for the interval, 50 ms."""
    work = Work()
    coalesced = CoalescedWork(work, interval_seconds=0.05)
    messages = [asyncio.create_task(coalesced("database"))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert work.runs == 1
    # A run that has begun may have read the database already, so one of these runs again.
    messages += [asyncio.create_task(coalesced("database")) for _ in range(5)]
    work.may_end.set()
    await asyncio.gather(*messages)
    assert work.runs == 2


async def test_failed_or_cancelled_run_does_not_block_the_next_one() -> None:
    runs = 0

    async def fail(context: str) -> None:
        nonlocal runs
        runs += 1
        raise LookupError

    coalesced = CoalescedWork(fail, interval_seconds=0.01)
    for _ in range(2):
        with pytest.raises(LookupError):
            await coalesced("database")
    waiting = asyncio.create_task(coalesced("database"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(LookupError):
        await coalesced("database")
    assert runs == 3
