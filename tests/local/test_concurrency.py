"""Steps side by side: all are done, or none goes on."""

import asyncio

import pytest

from segmentql.local.concurrency import run_concurrently


async def test_steps_do_not_wait_for_each_other() -> None:
    meeting = asyncio.Barrier(3)

    async def step() -> None:
        await meeting.wait()

    await asyncio.wait_for(run_concurrently(step(), step(), step()), timeout=30)


async def test_where_one_fails_the_others_are_cancelled_and_waited_for() -> None:
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


async def test_where_all_are_cancelled_none_goes_on() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("a")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run_concurrently(long(), long()), timeout=0.01)
    assert ended == ["a", "a"]
