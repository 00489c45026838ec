"""Many clients store, set, delete and erase the same keys concurrently."""

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.errors import (
    InvalidInput,
    MutationRejected,
    RejectionReason,
    UserAlreadyExists,
    UserNotFound,
)
from segmentql.memberships.service import update_user_segments
from segmentql.principal import NO_ACTOR
from segmentql.users import service
from tests.conftest import Api, Sql, until
from tests.operations import create_user, make_segments
from tests.operations import update_user_segments as send_update
from tests.timeline import history_inconsistencies

CLIENTS = 16
FIRST_ID = 100_000_000_000_000


async def test_clients_that_store_one_new_key_get_one_user(api: Api, sql: Sql) -> None:
    slugs = [f"S{number}" for number in range(CLIENTS)]
    await make_segments(api, *slugs)
    for key in ("a", "b", "c"):
        payloads = await asyncio.gather(*(send_update(api, key, add=[slug]) for slug in slugs))
        assert [payload["errors"] for payload in payloads] == [[]] * CLIENTS
        assert len({payload["user"]["id"] for payload in payloads}) == 1
        assert sum(payload["segmentsAdded"] for payload in payloads) == CLIENTS
    assert await sql.fetchval("SELECT count(*) FROM users") == 3
    assert await sql.fetchval("SELECT count(*) FROM memberships") == 3 * CLIENTS
    assert await history_inconsistencies(sql) == {}


async def test_concurrent_creations_of_one_key_have_one_winner(api: Api, sql: Sql) -> None:
    payloads = await asyncio.gather(*(create_user(api, key="a") for _ in range(CLIENTS)))
    (winner,) = [payload["user"] for payload in payloads if not payload["errors"]]
    losers = [payload["errors"] for payload in payloads if payload["errors"]]
    assert [[error["path"] for error in errors] for errors in losers] == [[["key"]]] * 15
    assert {errors[0]["user"]["id"] for errors in losers} == {winner["id"]}
    assert await sql.fetchval("SELECT count(*) FROM users") == 1


async def test_clients_that_store_other_keys_get_distinct_users(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    keys = [f"k{number}" for number in range(CLIENTS * 4)]

    async def client(number: int) -> None:
        for key in keys[number::CLIENTS]:
            assert (await send_update(api, key, add=["A"]))["errors"] == []

    await asyncio.gather(*map(client, range(CLIENTS)))
    rows = await sql.fetch("SELECT id, key FROM users ORDER BY id")
    assert sorted(row["key"] for row in rows) == sorted(keys)
    assert rows[0]["id"] >= FIRST_ID


async def test_id_that_another_client_stores_meanwhile_is_skipped(
    database: Database, sql: Sql
) -> None:
    """A client stores the sequence's next id by hand, and commits after the key is stored."""
    works: tuple[Any, ...] = (
        partial(service.create_user, user_id=None, user_key="a", actor=NO_ACTOR),
        partial(update_user_segments, user_key="b", add=[], remove=[], actor=NO_ACTOR),
    )
    for number, work in enumerate(works):
        next_id = FIRST_ID + 2 * number
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute("INSERT INTO users (id, created_at) VALUES ($1, now())", next_id)
        storing = asyncio.create_task(database.transaction(work))
        await until(lambda: transaction_waits(sql))
        await transaction.commit()
        await storing
        assert await sql.fetchval("SELECT max(id) FROM users") == next_id + 1
    assert await sql.fetchval("SELECT count(*) FROM users WHERE key IS NOT NULL") == 2


async def transaction_waits(sql: Sql) -> bool:
    """Return whether a transaction waits for a lock."""
    waits: bool = await sql.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    return waits


async def test_key_that_is_stored_while_it_is_set_is_rejected(database: Database, sql: Sql) -> None:
    """Storing and setting one key wait for each other, and never violate the unique index."""
    await sql.execute(
        "INSERT INTO users (id, created_at) SELECT n, now() FROM generate_series(1, 8) n"
    )
    outcomes: Counter[str] = Counter()

    async def record_outcome(work: Any) -> None:
        try:
            await database.transaction(work)
        except MutationRejected as rejected:
            outcomes.update(type(reason).__name__ for reason in rejected.reasons)
        else:
            outcomes["done"] += 1

    for key in (f"k{number}" for number in range(8)):
        outcomes.clear()
        works = [
            partial(service.set_user_key, user_id=user_id, user_key=key) for user_id in range(1, 9)
        ]
        works.append(partial(service.create_user, user_id=None, user_key=key, actor=NO_ACTOR))
        await asyncio.gather(*map(record_outcome, works))
        assert await sql.fetchval("SELECT count(*) FROM users WHERE key = $1", key) == 1
        # Users that got a key in an earlier round have another key.
        assert outcomes["done"] == 1
        assert sum(outcomes.values()) == 9
        assert set(outcomes) <= {"done", "UserAlreadyExists", "InvalidInput"}


def erasure(key: str) -> Any:
    return partial(service.delete_user, user_key=key, erase_key=True, actor=NO_ACTOR)


async def test_random_changes_by_id_and_key_keep_the_rules(
    database: Database, sql: Sql, api: Api
) -> None:
    await make_segments(api, "A", "B")
    keys = [f"k{number}" for number in range(4)]
    faults: list[RejectionReason] = []

    async def client(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes each time
        for _ in range(12):
            key, user_id = dice.choice(keys), dice.randint(1, 3)
            kind = dice.choice(["key", "key", "id", "create", "set", "delete", "erase"])
            add = dice.sample(["A", "B"], dice.randint(0, 2))
            works = {
                "key": partial(
                    update_user_segments, actor=NO_ACTOR, user_key=key, add=add, remove=[]
                ),
                "id": partial(
                    update_user_segments, actor=NO_ACTOR, user_id=user_id, add=add, remove=[]
                ),
                "create": partial(service.create_user, user_id=None, user_key=key, actor=NO_ACTOR),
                "set": partial(service.set_user_key, user_id=user_id, user_key=key),
                "delete": partial(service.delete_user, user_key=key, actor=NO_ACTOR),
                "erase": erasure(key),
            }
            faults.extend(await unexpected_rejections(works[kind]))

    async def unexpected_rejections(work: Any) -> list[RejectionReason]:
        try:
            await database.transaction(work)
        except MutationRejected as rejected:
            expected = (UserAlreadyExists, UserNotFound, InvalidInput)
            return [reason for reason in rejected.reasons if not isinstance(reason, expected)]
        return []

    await asyncio.gather(*map(client, range(CLIENTS)))
    assert faults == []
    assert await history_inconsistencies(sql) == {}
    for key in keys:
        assert await unexpected_rejections(erasure(key)) == []
    assert await sql.fetchval("SELECT count(key) FROM users") == 0
    assert await sql.fetchval("SELECT count(key) FROM user_lifetimes") == 0


@pytest.mark.parametrize("first", ["delete", "store"])
async def test_deletion_and_storing_of_a_key_wait_for_each_other(
    database: Database, sql: Sql, first: str
) -> None:
    creation = partial(service.create_user, user_id=None, user_key="a", actor=NO_ACTOR)
    user = await database.transaction(creation)
    works: dict[str, Any] = {
        "delete": partial(service.delete_user, user_key="a", actor=NO_ACTOR),
        "store": partial(update_user_segments, actor=NO_ACTOR, user_key="a", add=[], remove=[]),
    }
    (second,) = set(works) - {first}
    is_held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(session: Any) -> Any:
        result = await works[first](session)
        is_held.set()
        await go_on.wait()
        return result

    holding = asyncio.create_task(database.transaction(hold))
    await is_held.wait()
    waiting = asyncio.create_task(database.transaction(works[second]))
    await until(lambda: transaction_waits(sql))
    go_on.set()
    results = dict(zip((first, second), await asyncio.gather(holding, waiting), strict=True))
    assert results["delete"].user_id == user.user_id
    stored = await sql.fetchval("SELECT id FROM users WHERE key = 'a'")
    if first == "delete":
        # It is a new user with a new id.
        assert stored == results["store"].user.user_id != user.user_id
    else:
        assert (stored, results["store"].user.user_id) == (None, user.user_id)
