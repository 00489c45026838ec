"""Mutations that wait until a worker has finished what they requested: `waitSeconds`."""

import asyncio
import contextlib
from typing import TypeVar

from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.polling import Poller

V = TypeVar("V")


async def wait_until_finished(
    context: Context,
    record: V,
    key: int,
    *,
    finished: type[Poller[int, V]],
    current: type[Loader[int, V | None]],
    seconds: int,
) -> V:
    """Return a record when it is finished.

    Args:
        context: The context of the request.
        record: The record as the mutation stored it.
        key: The id of the record.
        finished: The poller of finished records.
        current: The loader of records, finished or not.
        seconds: The maximum time to wait.

    Returns:
        The finished record, or its current state when the time ends or the process stops.
    """
    if not seconds:
        return record
    waiting = context.loader(finished).subscribe(key)
    stopping = asyncio.create_task(context.stopping.wait())
    try:
        with context.pause_deadline():
            await asyncio.wait(
                (waiting, stopping), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        if waiting.done():
            return waiting.result()
    finally:
        waiting.cancel()
        stopping.cancel()
    # If this read fails, the mutation still succeeds, because its result is stored.
    with contextlib.suppress(Unavailable, TimedOut):
        record = await context.loader(current).load(key) or record
    return record
