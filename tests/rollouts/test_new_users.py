"""Users who are stored later join at once, in the transaction that stores them, by any path."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers, named
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.sampling import rollout_hash_v1
from segmentql.settings import Settings
from tests.conftest import Api, Sql
from tests.operations import change, counts, create_user, slugs_of
from tests.rollouts.helpers import (
    by_hand,
    enrolling,
    excluded,
    in_range,
    members,
    set_plan,
    store_users,
    written,
)
from tests.timeline import lies_of_history, make_segment


@pytest.fixture
async def as_service(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """A connection of the service's role, which may write no history and own no trigger."""
    connection = await asyncpg.connect(named(servers.service_url, "run"))
    yield connection
    await connection.close()


def whom(segment_id: int, user_ids: range, percent: float) -> dict[int, str]:
    """Who of these joins at once."""
    return {u: "ROLLOUT" for u in user_ids if in_range(segment_id, u, percent)}


# --- By any path ---------------------------------------------------------------------------------


async def test_create_user_puts_the_user_in_and_its_answer_shows_it(
    api: Api, sql: Sql, database: Database
) -> None:
    all_in = await enrolling(sql, database, "ALL", 100)
    half = await enrolling(sql, database, "HALF", 50)
    await make_segment(sql, "NONE")
    for user_id in range(1, 31):
        given = {"id": str(user_id)} if user_id % 2 else {}
        user = (await create_user(api, **given))["user"]
        if user_id % 2:
            assert user["id"] == str(user_id)
        slugs = ["ALL", "HALF"] if in_range(half, int(user["id"]), 50) else ["ALL"]
        assert [segment["slug"] for segment in user["segments"]] == slugs
    assert await members(sql, all_in) == dict.fromkeys(range(1, 31), "ROLLOUT")
    assert await members(sql, half) == whom(half, range(1, 31), 50)
    # What was there is refused, and nobody joins a second time.
    refused = await create_user(api, id="1")
    assert [error["code"] for error in refused["errors"]] == ["USER_ALREADY_EXISTS"]
    assert await written(sql, all_in) == {("JOINED", "ROLLOUT"): 30}
    assert await lies_of_history(sql) == {}


async def test_a_user_stored_by_hand_joins_other_rollouts_and_those_named_are_its_own_business(
    api: Api, sql: Sql, database: Database
) -> None:
    added = await enrolling(sql, database, "ADDED", 100)
    removed = await enrolling(sql, database, "REMOVED", 100)
    other = await enrolling(sql, database, "OTHER", 100)
    await make_segment(sql, "PLAIN")
    payload = await change(api, 7, add=["ADDED", "PLAIN"], remove=["REMOVED"])
    assert counts(payload) == (2, 0, 0)
    assert slugs_of(payload) == ["ADDED", "OTHER", "PLAIN"]
    assert [await members(sql, number) for number in (added, removed, other)] == [
        {7: "MANUAL"},
        {},
        {7: "ROLLOUT"},
    ]
    assert await excluded(sql, removed) == {7}
    assert [await written(sql, number) for number in (added, removed, other)] == [
        {("JOINED", "MANUAL"): 1},
        {},
        {("JOINED", "ROLLOUT"): 1},
    ]
    # The next change names none of them, and the user is stored already: nothing joins.
    assert counts(await change(api, 7)) == (0, 0, 0)
    assert counts(await change(api, 8)) == (0, 0, 0)
    assert await members(sql, removed) == {8: "ROLLOUT"}
    assert await lies_of_history(sql) == {}


async def test_what_is_named_by_hand_is_forgotten_with_its_transaction(
    sql: Sql, database: Database
) -> None:
    segment_id = await enrolling(sql, database, "A", 100)
    for user_id in range(1, 40):  # more than there are connections to remember it
        if user_id % 2:
            await by_hand(database, user_id, add=["A"])
        else:
            await by_hand(database, user_id)
    assert await members(sql, segment_id) == {
        user_id: "MANUAL" if user_id % 2 else "ROLLOUT" for user_id in range(1, 40)
    }


async def test_a_refused_change_stores_nobody_and_puts_in_nobody(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await enrolling(sql, database, "A", 100)
    payload = await change(api, 7, add=["A", "UNKNOWN"])
    assert [error["code"] for error in payload["errors"]] == ["SEGMENT_NOT_FOUND"]
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await written(sql, segment_id) == {}


async def by_values(connection: Sql) -> None:
    rows = ", ".join(f"({user_id}, clock_timestamp())" for user_id in range(1, 101))
    await connection.execute(f"INSERT INTO users (id, created_at) VALUES {rows}")


async def by_select(connection: Sql) -> None:
    await store_users(connection, 100)


async def by_executemany(connection: Sql) -> None:
    await connection.executemany(
        "INSERT INTO users (id, created_at) VALUES ($1, now())", [(u,) for u in range(1, 101)]
    )


async def by_copy(connection: Sql) -> None:
    await connection.copy_records_to_table(
        "users",
        columns=["id", "created_at"],
        # Dates are of no consequence: whoever loads users brings old ones.
        records=[(user_id, datetime(2020, 1, 1, tzinfo=UTC)) for user_id in range(1, 101)],
    )


async def by_conflict(connection: Sql) -> None:
    await store_users(connection, 50, first=11)
    await connection.execute(
        """
        INSERT INTO users (id, created_at) SELECT id, now() FROM generate_series(1, 100) AS id
        ON CONFLICT (id) DO UPDATE SET created_at = users.created_at
        """
    )


@pytest.mark.parametrize("path", [by_values, by_select, by_executemany, by_copy, by_conflict])
async def test_users_stored_by_sql_in_the_services_name_join_exactly_by_their_hash(
    sql: Sql, database: Database, as_service: Sql, path: Callable[[Sql], Awaitable[None]]
) -> None:
    percents = {"NOBODY": 0, "FEW": 0.001, "SOME": 12.345, "MOST": 87.5, "ALL": 100}
    segments = {p: await enrolling(sql, database, slug, p) for slug, p in percents.items()}
    await path(as_service)
    for percent, segment_id in segments.items():
        expected = whom(segment_id, range(1, 101), percent)
        assert await members(sql, segment_id) == expected
        assert sum((await written(sql, segment_id)).values()) == len(expected)
    assert await lies_of_history(sql) == {}


async def test_users_stored_and_rolled_back_never_joined(sql: Sql, database: Database) -> None:
    segment_id = await enrolling(sql, database, "A", 100)
    transaction = sql.transaction()
    await transaction.start()
    await store_users(sql, 3)
    assert len(await members(sql, segment_id)) == 3
    await transaction.rollback()
    assert await members(sql, segment_id) == {}
    assert await written(sql, segment_id) == {}


async def test_the_trigger_reads_the_real_rollouts_whatever_the_session_calls_them(
    sql: Sql, database: Database, as_service: Sql
) -> None:
    segment_id = await enrolling(sql, database, "A", 50)
    await as_service.execute(
        """
        CREATE TEMP TABLE rollouts (LIKE public.rollouts);
        CREATE TEMP TABLE memberships (LIKE public.memberships);
        CREATE TEMP TABLE segments (LIKE public.segments);
        CREATE FUNCTION pg_temp.rollout_hash_v1(bigint, bigint) RETURNS bigint
            LANGUAGE sql AS $$ SELECT 0::bigint $$;
        SET search_path = pg_temp, public, pg_catalog;
        """
    )
    await store_users(as_service, 40)
    assert await members(sql, segment_id) == whom(segment_id, range(1, 41), 50)


async def test_the_limit_lies_between_two_hashes_that_are_next_to_each_other(
    sql: Sql, database: Database
) -> None:
    """A percent's limit is exact: a hash joins if and only if it is below percent / 100 x 2^48."""
    segment_id = await make_segment(sql, "A")
    # Of many users, those whose hashes are closest to a limit of three decimals, on either side.
    hashes = {user_id: rollout_hash_v1(segment_id, user_id) for user_id in range(1, 20_001)}
    share = 2**48 / 100_000
    below = max(hashes, key=lambda user_id: hashes[user_id] % share)
    above = min(hashes, key=lambda user_id: hashes[user_id] % share)
    for user_id, step, joins in ((below, 1, True), (above, 0, False)):
        percent = (hashes[user_id] // share + step) / 1000
        await set_plan(database, "A", round(percent, 3))
        await advance_rollout(database, segment_id)
        await store_users(sql, 1, first=user_id)
        assert (user_id in await members(sql, segment_id)) == joins
