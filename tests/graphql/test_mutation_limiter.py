"""The limiter of a mutation holds for its dry run, too."""

from types import SimpleNamespace
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.graphql.cost.scheduling import BACKGROUND_CONCURRENCY, BackgroundLimiter
from segmentql.graphql.types.mutations import run_mutation
from segmentql.graphql.types.validation import InputValidator


@pytest.mark.parametrize("dry_run", [False, True])
async def test_limiter_is_held_during_the_transaction(database: Database, *, dry_run: bool) -> None:
    limiter = BackgroundLimiter()
    free: list[int] = []

    async def work(session: WriteSession) -> None:
        free.append(limiter._semaphore._value)

    context = SimpleNamespace(database=database, idempotency=None, idempotency_keys=None)
    info: Any = SimpleNamespace(context=context)
    await run_mutation(
        info, dict, InputValidator(), work, lambda _: {}, dry_run=dry_run, limiter=limiter
    )
    assert free == [BACKGROUND_CONCURRENCY - 1]
    assert limiter._semaphore._value == BACKGROUND_CONCURRENCY
