"""Long work gives way: others have their turns between its own."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import strawberry
from graphql.language.ast import Token

from graphql import GraphQLError
from segmentql.adapters.database import Database, ReadSession
from segmentql.graphql.cost.document_limits import DocumentLimits, parse_within_limits
from segmentql.graphql.cost.scheduling import (
    BACKGROUND_CONCURRENCY,
    THROTTLE_FACTOR,
    TIME_SLICE_SECONDS,
    BackgroundLimiter,
    MutationGate,
    yield_to_event_loop,
)
from segmentql.graphql.execution.executor import GraphQLExecutor, Request
from segmentql.graphql.types.dataloader import Loader, LoaderRegistry
from segmentql.settings import Settings
from tests.graphql.executor_helpers import make_context

STEP_SECONDS = 0.001
LIMITS = DocumentLimits(
    tokens=4000,
    depth=20,
    aliases=100,
    directives=50,
    root_fields=50,
    list_items=2000,
    cost=1,
    response_bytes=10**7,
)


@dataclass
class Others:
    """Requests that have something to do in each turn of the event loop."""

    steps: int = 0


@asynccontextmanager
async def busy() -> AsyncIterator[Others]:
    others = Others()

    async def work() -> None:
        while True:
            time.sleep(STEP_SECONDS)  # noqa: ASYNC251 - it is to keep the loop busy
            others.steps += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    try:
        yield others
    finally:
        task.cancel()


async def test_where_others_are_waiting_they_have_longer_than_the_turn_that_was() -> None:
    async with busy() as others:
        before = others.steps
        await yield_to_event_loop()
    # A step may take longer than it sleeps, on a busy machine.
    assert others.steps - before >= 2
    assert (THROTTLE_FACTOR * TIME_SLICE_SECONDS) > 2 * STEP_SECONDS


class Instant(Loader[int, int]):
    """Answers at once, and notes when."""

    max_keys = 3
    max_concurrent_batches = 1
    read_at: ClassVar[list[float]] = []

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        self.read_at.append(time.monotonic())
        return {key: key for key in keys}

    def on_missing(self, key: int) -> int:
        raise AssertionError


async def test_after_a_full_batch_a_loader_lets_others_before_it_reads_the_next(
    database: Database,
) -> None:
    Instant.read_at.clear()
    loader = LoaderRegistry(database, primary=True).get(Instant)
    async with busy():
        answers = await asyncio.gather(*map(loader.load, range(9)))
    assert answers == list(range(9))
    pauses = [later - sooner for sooner, later in pairwise(Instant.read_at)]
    assert len(pauses) == 2
    assert min(pauses) >= THROTTLE_FACTOR * TIME_SLICE_SECONDS


async def test_what_can_wait_is_done_two_at_a_time_and_rests_where_others_are_waiting() -> None:
    background, at_it, most = BackgroundLimiter(), 0, 0

    async def do_something() -> None:
        nonlocal at_it, most
        async with background.enter():
            at_it += 1
            most = max(most, at_it)
            await asyncio.sleep(0)
            at_it -= 1

    begun = time.monotonic()
    async with busy():
        await asyncio.gather(*(do_something() for _ in range(10)))
    assert most == BACKGROUND_CONCURRENCY == 2
    assert time.monotonic() - begun >= 5 * THROTTLE_FACTOR * TIME_SLICE_SECONDS


async def test_one_is_let_through_in_a_turn_of_the_loop_in_the_order_they_came() -> None:
    one_by_one, turns, begun = MutationGate(), 0, []

    async def begin(number: int) -> None:
        await one_by_one.enter()
        begun.append((number, turns))

    tasks = [asyncio.create_task(begin(number)) for number in range(20)]
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    assert [number for number, _ in begun] == list(range(20))
    assert len({turn for _, turn in begun}) == 20


async def test_who_gives_up_waiting_for_a_turn_keeps_none_from_the_others() -> None:
    one_by_one = MutationGate()
    tasks = [asyncio.create_task(one_by_one.enter()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()
    async with asyncio.timeout(10):
        await tasks[4]


async def test_a_read_does_not_wait_until_all_changes_that_came_before_it_have_begun(
    database: Database, settings: Settings
) -> None:
    begun: list[str] = []

    def note(field: str) -> bool:
        begun.append(field)
        return True

    @strawberry.type
    class Query:
        @strawberry.field
        def read(self) -> bool:
            return note("read")

    @strawberry.type
    class Mutation:
        @strawberry.mutation
        def change(self) -> bool:
            return note("change")

    executor = GraphQLExecutor(strawberry.Schema(Query, Mutation), replace(LIMITS, cost=100))
    asked = [*["mutation { change }"] * 20, "{ read }"]
    for query in set(asked):  # a document that is new is parsed in a thread
        await executor.execute(Request(query), make_context(database, settings), queries_only=False)
    begun.clear()
    await asyncio.gather(
        *(
            executor.execute(Request(query), make_context(database, settings), queries_only=False)
            for query in asked
        )
    )
    executor.close()
    assert begun.count("change") == 20
    assert begun.index("read") <= 2


@pytest.mark.parametrize("limits", [LIMITS, replace(LIMITS, aliases=10)], ids=["read", "refused"])
def test_a_document_that_is_forgotten_is_gone_without_the_garbage_collector(
    limits: DocumentLimits,
) -> None:
    document = "{ " + " ".join(f"forgotten{n}: __typename" for n in range(50)) + " }"
    gc.collect()
    gc.disable()
    try:
        with suppress(GraphQLError):
            parse_within_limits(document, limits)
        left = [thing for thing in gc.get_objects() if type(thing) is Token]
    finally:
        gc.enable()
    assert [token for token in left if (token.value or "").startswith("forgotten")] == []
