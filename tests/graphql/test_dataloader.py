"""Loaders: what is asked in one turn of the event loop is one statement, and keys do not meddle."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import LOCK_SECONDS
from segmentql.adapters.database import Database, ReadSession
from segmentql.errors import Unavailable
from segmentql.graphql.types.dataloader import Loader, LoaderRegistry
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import Api, Sql, recorded_statements, until

_STORED = text(
    """
    SELECT CAST(id AS text) AS id FROM users
    WHERE id IN (SELECT CAST(key AS bigint) FROM unnest(CAST(:keys AS text[])) AS key)
    """
)
_LOCKED = text("SELECT id, pg_advisory_xact_lock_shared(1) FROM users WHERE id = ANY(:ids)")


class IsStored(Loader[str, bool]):
    """Whether a user of this number, in decimal, is stored; what is no number fails in SQL."""

    async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
        rows = await session.execute(_STORED, {"keys": list(keys)})
        return {row.id: True for row in rows}

    def on_missing(self, key: str) -> bool:
        return False


class Few(IsStored):
    max_keys = 3


class MustBeStored(IsStored):
    def on_missing(self, key: str) -> bool:
        raise Unavailable


class Held(Loader[int, int]):
    """Answers a key with itself, once nobody holds the advisory lock 1."""

    max_concurrent_batches = 2
    under_way: ClassVar[list[list[int]]] = []

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, int]:
        self.under_way.append(list(keys))
        try:
            rows = await session.execute(_LOCKED, {"ids": list(keys)})
            return {row.id: row.id for row in rows}
        finally:
            self.under_way.remove(list(keys))

    def on_missing(self, key: int) -> int:
        raise AssertionError


@pytest.fixture
async def loaders(database: Database, sql: Sql) -> LoaderRegistry:
    """Loaders over a database with the users 1 to 20."""
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 20) AS n")
    return LoaderRegistry(database, primary=True)


@pytest.fixture
async def held(sql: Sql) -> AsyncIterator[Sql]:
    """Holds advisory lock 1; the connection may let it go."""
    await sql.execute("SELECT pg_advisory_lock(1)")
    yield sql
    await sql.execute("SELECT pg_advisory_unlock_all()")


def waiting(sql: Sql, number: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many statements wait for a lock."""

    async def wait() -> bool:
        found = await sql.fetchval(
            """
            SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
            WHERE d.datname = current_database() AND NOT granted
            """
        )
        return bool(found == number)

    return wait


async def test_keys_asked_in_one_turn_are_one_statement(loaders: LoaderRegistry) -> None:
    loader = loaders.get(IsStored)
    with recorded_statements() as statements:
        answers = await asyncio.gather(*(loader.load(str(key)) for key in range(15, 25)))
    assert answers == [True] * 6 + [False] * 4
    assert len(statements) == 1


async def test_a_key_asked_by_many_is_in_the_statement_once(loaders: LoaderRegistry) -> None:
    asked: list[Sequence[str]] = []

    class Noted(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            asked.append(keys)
            return await super().load_batch(session, keys)

    loader = loaders.get(Noted)
    assert await asyncio.gather(*map(loader.load, ("1", "99", "1", "1"))) == [
        True,
        False,
        True,
        True,
    ]
    assert asked == [["1", "99"]]


async def test_nothing_is_remembered_a_key_asked_after_a_commit_sees_it(
    loaders: LoaderRegistry, sql: Sql
) -> None:
    loader = loaders.get(IsStored)
    assert await loader.load("21") is False
    await sql.execute("INSERT INTO users VALUES (21, now())")
    assert await loader.load("21") is True


async def test_a_key_asked_after_a_commit_does_not_join_a_statement_sent_before_it(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    early = loader.load(1)
    await until(waiting(held, 1))
    late = loader.load(1)
    await until(waiting(held, 2))
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert [await early, await late] == [1, 1]


async def test_more_keys_than_one_statement_takes_are_several(loaders: LoaderRegistry) -> None:
    loader = loaders.get(Few)
    with recorded_statements() as statements:
        answers = await asyncio.gather(*(loader.load(str(key)) for key in range(1, 21)))
    assert answers == [True] * 20
    assert len(statements) == 7


async def test_statements_under_way_are_bounded_and_what_waits_makes_a_larger_batch(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    wishes = []
    for key in (1, 2):
        wishes.append(loader.load(key))
        await until(waiting(held, key))
    for key in (3, 4, 5):
        wishes.append(loader.load(key))
    assert Held.under_way == [[1], [2]]
    with recorded_statements() as statements:
        await held.execute("SELECT pg_advisory_unlock(1)")
        assert await asyncio.gather(*wishes) == [1, 2, 3, 4, 5]
    assert len(statements) == 1


async def test_a_bad_key_fails_alone(loaders: LoaderRegistry) -> None:
    loader = loaders.get(IsStored)
    keys = ["1", "2", "bad", "3", "99", "worse"]
    answers = await asyncio.gather(*map(loader.load, keys), return_exceptions=True)
    assert [answers[position] for position in (0, 1, 3, 4)] == [True, True, True, False]
    for position in (2, 5):
        assert isinstance(answers[position], DBAPIError)
        assert "invalid input syntax" in str(answers[position])


async def test_a_key_without_an_answer_may_fail_and_its_neighbours_do_not(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(MustBeStored)
    found, missing = await asyncio.gather(
        loader.load("1"), loader.load("99"), return_exceptions=True
    )
    assert found is True
    assert isinstance(missing, Unavailable)


async def test_a_database_that_is_away_is_asked_twice_and_not_once_a_key(
    servers: LocalServers, settings: Settings
) -> None:
    tried = 0

    class Tried(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            nonlocal tried
            tried += 1
            return await super().load_batch(session, keys)

    away = Database(servers.settings("nowhere"), name="tests", publish=lambda _: None)
    loader = LoaderRegistry(away, primary=True).get(Tried)
    answers = await asyncio.gather(
        *(loader.load(str(key)) for key in range(10)), return_exceptions=True
    )
    await away.dispose()
    assert [type(answer) for answer in answers] == [Unavailable] * 10
    assert tried == 2


async def test_who_gives_up_does_not_take_the_answer_from_the_others(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    first, same, other = loader.load(1), loader.load(1), loader.load(2)
    await until(waiting(held, 1))
    first.cancel()
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert [await same, await other] == [1, 2]
    assert first.cancelled()


async def test_a_statement_that_nobody_waits_for_is_cancelled(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    wishes = [loader.load(1), loader.load(1), loader.load(2)]
    await until(waiting(held, 1))
    for wish in wishes:
        wish.cancel()
    await until(waiting(held, 0), seconds=LOCK_SECONDS - 1)

    async def has_ended() -> bool:
        return Held.under_way == []

    await until(has_ended)
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert await loader.load(1) == 1


async def test_a_key_given_up_before_it_is_sent_is_not_sent(loaders: LoaderRegistry) -> None:
    asked: list[Sequence[str]] = []

    class Noted(IsStored):
        async def load_batch(self, session: ReadSession, keys: Sequence[str]) -> Mapping[str, bool]:
            asked.append(keys)
            return await super().load_batch(session, keys)

    loader = loaders.get(Noted)
    loader.load("1").cancel()
    assert await loader.load("2") is True
    assert asked == [["2"]]


async def test_many_keys_are_answered_in_their_order_and_with_repeats(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(IsStored)
    with recorded_statements() as statements:
        async with asyncio.timeout(10):
            many, one, none = await asyncio.gather(
                loader.load_many(["99", "1", "99", "2"]), loader.load("1"), loader.load_many([])
            )
    assert (many, one, none) == ([False, True, False, True], True, [])
    assert len(statements) == 1


async def test_many_keys_may_take_many_statements(loaders: LoaderRegistry) -> None:
    keys = [str(key) for key in range(30, 10, -1)]
    assert await loaders.get(Few).load_many(keys) == [key <= 20 for key in range(30, 10, -1)]


async def test_many_keys_with_a_bad_one_among_them_fail_and_others_do_not(
    loaders: LoaderRegistry,
) -> None:
    loader = loaders.get(IsStored)
    failed, many, one = await asyncio.gather(
        loader.load_many(["1", "bad", "worse"]),
        loader.load_many(["1", "2"]),
        loader.load("2"),
        return_exceptions=True,
    )
    assert isinstance(failed, DBAPIError)
    assert many == [True, True]
    assert one is True


async def test_a_key_without_an_answer_fails_the_many_it_is_among(loaders: LoaderRegistry) -> None:
    loader = loaders.get(MustBeStored)
    missed, found = await asyncio.gather(
        loader.load_many(["1", "99", "98"]), loader.load_many(["1", "2"]), return_exceptions=True
    )
    assert isinstance(missed, Unavailable)
    assert found == [True, True]


async def test_who_gives_up_many_keys_does_not_take_the_answer_from_the_others(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    many, other = loader.load_many([1, 2]), loader.load_many([2, 3])
    await until(waiting(held, 1))
    many.cancel()
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert await other == [2, 3]
    assert many.cancelled()


async def test_a_statement_for_many_keys_that_nobody_waits_for_is_cancelled(
    loaders: LoaderRegistry, held: Sql
) -> None:
    loader = loaders.get(Held)
    many, other = loader.load_many([1, 2, 1]), loader.load(1)
    await until(waiting(held, 1))
    many.cancel()
    other.cancel()
    await until(waiting(held, 0), seconds=LOCK_SECONDS - 1)
    assert Held.under_way == []
    loader.load_many([4, 5]).cancel()
    await held.execute("SELECT pg_advisory_unlock(1)")
    assert await loader.load_many([1]) == [1]


async def test_a_loader_is_made_once_a_process(loaders: LoaderRegistry) -> None:
    assert loaders.get(IsStored) is loaders.get(IsStored)
    assert loaders.get(IsStored) is not loaders.get(Few)


async def test_requests_that_come_while_others_are_read_share_one_statement(
    api: Api, sql: Sql
) -> None:
    await sql.execute("INSERT INTO users SELECT n, now() FROM generate_series(1, 10) AS n")
    query = "query($id: ID!) { user(id: $id) { id } }"
    requests = []

    async def all_under_way() -> bool:
        return "segmentql_requests_in_flight 10.0" in (await api.http.get("/metrics")).text

    with recorded_statements() as statements:
        async with sql.transaction():
            await sql.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            for number in range(1, Loader.max_concurrent_batches + 1):
                requests.append(asyncio.create_task(api(query, id=str(number))))
                await until(waiting(sql, number))
            for number in range(Loader.max_concurrent_batches + 1, 11):
                requests.append(asyncio.create_task(api(query, id=str(number))))
            await until(all_under_way)
        answers = await asyncio.gather(*requests)
    assert answers == [{"user": {"id": str(number)}} for number in range(1, 11)]
    reads = [statement for statement in statements if "FROM users WHERE id = ANY" in statement]
    assert len(reads) == Loader.max_concurrent_batches + 1
