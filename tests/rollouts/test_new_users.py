"""New users join rollouts in the transaction that stores them, in every way of storing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import pytest

from segmentql.adapters.database import Database
from segmentql.local import LocalServers, with_database
from segmentql.rollouts.actors import advance_rollout
from segmentql.rollouts.sampling import rollout_hash_v1
from segmentql.settings import Settings
from tests.conftest import Api, Sql
from tests.operations import change_counts, create_user, segment_slugs, update_user_segments
from tests.rollouts.helpers import (
    create_enrolling_segment,
    excluded,
    history_counts,
    joins_on_insert,
    members,
    set_plan,
    store_users,
    update_manually,
)
from tests.timeline import history_inconsistencies, make_segment


@pytest.fixture
async def as_service(servers: LocalServers, settings: Settings, sql: Sql) -> AsyncIterator[Sql]:
    """A connection as the service's role, which cannot write history or own triggers."""
    connection = await asyncpg.connect(with_database(servers.service_url, "run"))
    yield connection
    await connection.close()


def expected_joins(segment_id: int, user_ids: range, percent: float) -> dict[int, str]:
    """Return the expected memberships of these new users."""
    return {u: "ROLLOUT" for u in user_ids if joins_on_insert(segment_id, u, percent)}


# --- Ways to insert ------------------------------------------------------------------------------


async def test_create_user_joins_rollouts_and_returns_them(
    api: Api, sql: Sql, database: Database
) -> None:
    all_in = await create_enrolling_segment(sql, database, "ALL", 100)
    half = await create_enrolling_segment(sql, database, "HALF", 50)
    await make_segment(sql, "NONE")
    for user_id in range(1, 31):
        fields = {"id": str(user_id)} if user_id % 2 else {}
        user = (await create_user(api, **fields))["user"]
        if user_id % 2:
            assert user["id"] == str(user_id)
        slugs = ["ALL", "HALF"] if joins_on_insert(half, int(user["id"]), 50) else ["ALL"]
        assert [segment["slug"] for segment in user["segments"]] == slugs
    assert await members(sql, all_in) == dict.fromkeys(range(1, 31), "ROLLOUT")
    assert await members(sql, half) == expected_joins(half, range(1, 31), 50)
    # An existing user is rejected and does not join again.
    rejected = await create_user(api, id="1")
    assert [error["code"] for error in rejected["errors"]] == ["USER_ALREADY_EXISTS"]
    assert await history_counts(sql, all_in) == {("JOINED", "ROLLOUT"): 30}
    assert await history_inconsistencies(sql) == {}


async def test_user_stored_by_an_update_joins_only_unnamed_rollouts(
    api: Api, sql: Sql, database: Database
) -> None:
    added = await create_enrolling_segment(sql, database, "ADDED", 100)
    removed = await create_enrolling_segment(sql, database, "REMOVED", 100)
    other = await create_enrolling_segment(sql, database, "OTHER", 100)
    await make_segment(sql, "PLAIN")
    payload = await update_user_segments(api, 7, add=["ADDED", "PLAIN"], remove=["REMOVED"])
    assert change_counts(payload) == (2, 0, 0)
    assert segment_slugs(payload) == ["ADDED", "OTHER", "PLAIN"]
    assert [await members(sql, number) for number in (added, removed, other)] == [
        {7: "MANUAL"},
        {},
        {7: "ROLLOUT"},
    ]
    assert await excluded(sql, removed) == {7}
    assert [await history_counts(sql, number) for number in (added, removed, other)] == [
        {("JOINED", "MANUAL"): 1},
        {},
        {("JOINED", "ROLLOUT"): 1},
    ]
    # The user is already stored, so the next change adds no membership.
    assert change_counts(await update_user_segments(api, 7)) == (0, 0, 0)
    assert change_counts(await update_user_segments(api, 8)) == (0, 0, 0)
    assert await members(sql, removed) == {8: "ROLLOUT"}
    assert await history_inconsistencies(sql) == {}


async def test_named_segments_are_forgotten_after_the_transaction(
    sql: Sql, database: Database
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    for user_id in range(1, 40):  # more users than pooled connections
        if user_id % 2:
            await update_manually(database, user_id, add=["A"])
        else:
            await update_manually(database, user_id)
    assert await members(sql, segment_id) == {
        user_id: "MANUAL" if user_id % 2 else "ROLLOUT" for user_id in range(1, 40)
    }


async def test_rejected_update_stores_no_user_and_adds_no_member(
    api: Api, sql: Sql, database: Database
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    payload = await update_user_segments(api, 7, add=["A", "UNKNOWN"])
    assert [error["code"] for error in payload["errors"]] == ["SEGMENT_NOT_FOUND"]
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    assert await history_counts(sql, segment_id) == {}


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
        # A bulk load may set old dates, which make no difference.
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
async def test_users_stored_by_sql_join_exactly_by_their_hash(
    sql: Sql, database: Database, as_service: Sql, path: Callable[[Sql], Awaitable[None]]
) -> None:
    percents = {"NOBODY": 0, "FEW": 0.001, "SOME": 12.345, "MOST": 87.5, "ALL": 100}
    segments = {
        p: await create_enrolling_segment(sql, database, slug, p) for slug, p in percents.items()
    }
    await path(as_service)
    for percent, segment_id in segments.items():
        expected = expected_joins(segment_id, range(1, 101), percent)
        assert await members(sql, segment_id) == expected
        assert sum((await history_counts(sql, segment_id)).values()) == len(expected)
    assert await history_inconsistencies(sql) == {}


async def test_rolled_back_users_never_joined(sql: Sql, database: Database) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 100)
    transaction = sql.transaction()
    await transaction.start()
    await store_users(sql, 3)
    assert len(await members(sql, segment_id)) == 3
    await transaction.rollback()
    assert await members(sql, segment_id) == {}
    assert await history_counts(sql, segment_id) == {}


async def test_trigger_ignores_temporary_tables_of_the_session(
    sql: Sql, database: Database, as_service: Sql
) -> None:
    segment_id = await create_enrolling_segment(sql, database, "A", 50)
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
    assert await members(sql, segment_id) == expected_joins(segment_id, range(1, 41), 50)


async def test_join_limit_is_exact_between_adjacent_hashes(sql: Sql, database: Database) -> None:
    """A user joins if and only if the hash is below percent / 100 x 2^48."""
    segment_id = await make_segment(sql, "A")
    # The users whose hashes are closest to a limit with three decimals, on either side.
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
