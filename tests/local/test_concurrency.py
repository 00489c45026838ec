"""Concurrent steps all succeed, or all are cancelled."""

import asyncio

import pytest

from segmentql.local.concurrency import run_concurrently


async def test_steps_run_concurrently() -> None:
    meeting = asyncio.Barrier(3)

    async def step() -> None:
        await meeting.wait()

    await asyncio.wait_for(run_concurrently(step(), step(), step()), timeout=30)


async def test_failed_step_cancels_and_awaits_the_others() -> None:
    ended: list[str] = []

    async def long(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def fails() -> None:
        raise ConnectionError("this one")

    with pytest.raises(ConnectionError, match="this one"):
        await run_concurrently(long("a"), fails(), long("b"))
    assert ended == ["a", "b"]


async def test_cancellation_cancels_every_step() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("a")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run_concurrently(long(), long()), timeout=0.01)
    assert ended == ["a", "a"]
