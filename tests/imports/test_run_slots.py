"""Imports leave threads of the worker to other jobs."""

from contextlib import ExitStack

import pytest

from segmentql.adapters.jobs import Message
from segmentql.imports.jobs import ADVANCE_IMPORT
from segmentql.imports.run_slots import RunSlots
from segmentql.local import LocalServers
from tests.conftest import Api, RunWorker, Sql, suspended, until
from tests.imports.lists import Imports, counts
from tests.operations import make_segments, update_user_segments
from tests.rollouts.graphql_client import set_rollout

FIRST, SECOND, THIRD = (Message(ADVANCE_IMPORT, (number,)) for number in (1, 2, 3))


def test_message_without_a_slot_is_published_once_when_a_run_ends() -> None:
    sent: list[Message] = []
    slots = RunSlots(4, sent.extend)
    with slots.take(FIRST) as has_first:
        for message in (SECOND, THIRD, SECOND):
            with slots.take(message) as has_slot:
                assert not has_slot
        assert has_first
        assert sent == []
    assert sent == [SECOND]
    with slots.take(FIRST) as has_first:
        assert has_first
    assert sent == [SECOND, THIRD]
    with slots.take(FIRST):
        pass
    assert sent == [SECOND, THIRD]


def test_failed_run_frees_its_slot() -> None:
    sent: list[Message] = []
    slots = RunSlots(1, sent.extend)
    with pytest.raises(KeyError, match="mine"), slots.take(FIRST), slots.take(SECOND):
        raise KeyError("mine")
    assert sent == [SECOND]
    with slots.take(SECOND) as has_slot:
        assert has_slot


def test_number_of_slots_follows_the_threads() -> None:
    for threads, expected in ((1, 1), (7, 1), (8, 2), (100, 25)):
        slots = RunSlots(threads, lambda _: None)
        takes = [slots.take(Message(ADVANCE_IMPORT, (number,))) for number in range(30)]
        assert sum(take.__enter__() for take in takes) == expected


@pytest.mark.slow
async def test_imports_whose_store_hangs_do_not_delay_leaves_and_rollouts(
    api: Api, sql: Sql, servers: LocalServers, imports: Imports, run_worker: RunWorker
) -> None:
    await make_segments(api, "a", "ttl", "rollout")
    started = [await imports.start(b"5\n6\n") for _ in range(20)]

    async def has_left() -> bool:
        count = "SELECT count(*) FROM history WHERE operation = 'LEFT' AND cause = 'TTL'"
        return bool(await sql.fetchval(count))

    async def has_joined() -> bool:
        count = "SELECT count(*) FROM history WHERE operation = 'JOINED' AND cause = 'ROLLOUT'"
        return bool(await sql.fetchval(count))

    async def reading() -> int:
        count = "SELECT count(*) FROM imports WHERE status = 'VALIDATING'"
        number: int = await sql.fetchval(count)
        return number

    async def are_completed() -> bool:
        return not await sql.fetchval("SELECT count(*) FROM imports WHERE status <> 'COMPLETED'")

    with ExitStack() as stack:
        stack.enter_context(suspended(servers.store))
        async with run_worker(SEGMENTQL_WORKER_THREADS="8"):
            await until(reading)
            await update_user_segments(api, 1, add=["ttl"], ttlSeconds=1)
            await set_rollout(api, {"percent": 100}, "rollout")
            await until(has_left, seconds=8)
            await until(has_joined, seconds=8)
            assert 1 <= await reading() <= 2
            stack.close()
            await until(are_completed, seconds=60)
    assert counts(await imports.read(started[0]["id"])) == {"JOINED": 2}
    assert counts(await imports.read(started[-1]["id"])) == {"ALREADY_IN": 2}
