"""Long work yields to other requests."""

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
from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.cost.document_limits import DocumentLimits, parse_within_limits
from segmentql.graphql.cost.scheduling import (
    BACKGROUND_CONCURRENCY,
    THROTTLE_FACTOR,
    TIME_SLICE_SECONDS,
    BackgroundLimiter,
    MutationGate,
    yield_to_event_loop,
)
from segmentql.graphql.execution.executor import GraphQLExecutor
from segmentql.graphql.execution.request import Request
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
class BusyTask:
    """The steps of a task that has work in each iteration of the event loop."""

    steps: int = 0


@asynccontextmanager
async def busy_loop() -> AsyncIterator[BusyTask]:
    busy_task = BusyTask()

    async def work() -> None:
        while True:
            time.sleep(STEP_SECONDS)  # noqa: ASYNC251 - keeps the loop busy
            busy_task.steps += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    try:
        yield busy_task
    finally:
        task.cancel()


async def test_yield_gives_other_tasks_more_time_than_the_slice() -> None:
    async with busy_loop() as busy_task:
        before = busy_task.steps
        await yield_to_event_loop()
    # A step may take longer than it sleeps on a busy machine.
    assert busy_task.steps - before >= 2
    assert (THROTTLE_FACTOR * TIME_SLICE_SECONDS) > 2 * STEP_SECONDS


class InstantLoader(Loader[int, int]):
    """A loader that returns at once and records the time of each batch."""

    max_keys = 3
    max_concurrent_batches = 1
    read_at: ClassVar[list[float]] = []

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        self.read_at.append(time.monotonic())
        return {key: key for key in keys}

    def on_missing(self, key: int) -> int:
        raise AssertionError


async def test_loader_yields_after_a_full_batch(
    database: Database,
) -> None:
    InstantLoader.read_at.clear()
    loader = LoaderRegistry(database, primary=True).get(InstantLoader)
    async with busy_loop():
        answers = await asyncio.gather(*map(loader.load, range(9)))
    assert answers == list(range(9))
    pauses = [later - earlier for earlier, later in pairwise(InstantLoader.read_at)]
    assert len(pauses) == 2
    assert min(pauses) >= THROTTLE_FACTOR * TIME_SLICE_SECONDS


async def test_background_limiter_runs_two_jobs_and_yields() -> None:
    background, running, most_running = BackgroundLimiter(), 0, 0

    async def run_job() -> None:
        nonlocal running, most_running
        async with background.enter():
            running += 1
            most_running = max(most_running, running)
            await asyncio.sleep(0)
            running -= 1

    started = time.monotonic()
    async with busy_loop():
        await asyncio.gather(*(run_job() for _ in range(10)))
    assert most_running == BACKGROUND_CONCURRENCY == 2
    assert time.monotonic() - started >= 5 * THROTTLE_FACTOR * TIME_SLICE_SECONDS


async def test_mutation_gate_admits_one_per_loop_turn_in_order() -> None:
    gate, turns, started = MutationGate(), 0, []

    async def begin(number: int) -> None:
        await gate.enter()
        started.append((number, turns))

    tasks = [asyncio.create_task(begin(number)) for number in range(20)]
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    assert [number for number, _ in started] == list(range(20))
    assert len({turn for _, turn in started}) == 20


async def test_cancelled_waiter_does_not_block_the_gate() -> None:
    gate = MutationGate()
    tasks = [asyncio.create_task(gate.enter()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()
    async with asyncio.timeout(10):
        await tasks[4]


async def test_read_does_not_wait_for_queued_mutations(
    database: Database, settings: Settings
) -> None:
    started: list[str] = []

    def note(field: str) -> bool:
        started.append(field)
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

    engine = GraphQLExecutor(strawberry.Schema(Query, Mutation), replace(LIMITS, cost=100))
    documents = [*["mutation { change }"] * 20, "{ read }"]
    for query in set(documents):  # a new document is parsed in a thread
        await engine.execute(Request(query), make_context(database, settings), queries_only=False)
    started.clear()
    await asyncio.gather(
        *(
            engine.execute(Request(query), make_context(database, settings), queries_only=False)
            for query in documents
        )
    )
    engine.close()
    assert started.count("change") == 20
    assert started.index("read") <= 2


@pytest.mark.parametrize("limits", [LIMITS, replace(LIMITS, aliases=10)], ids=["read", "refused"])
def test_evicted_document_is_freed_without_the_garbage_collector(
    limits: DocumentLimits,
) -> None:
    document = "{ " + " ".join(f"forgotten{n}: __typename" for n in range(50)) + " }"
    gc.collect()
    gc.disable()
    try:
        with suppress(GraphQLError):
            parse_within_limits(document, limits)
        remaining = [candidate for candidate in gc.get_objects() if type(candidate) is Token]
    finally:
        gc.enable()
    assert [token for token in remaining if (token.value or "").startswith("forgotten")] == []
