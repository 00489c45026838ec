"""The locks and the changes that imports and `updateSegmentMembers` make, and their authors."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.memberships.bulk_changes import add_members, remove_members
from segmentql.memberships.bulk_locks import lock_segment_for_members, lock_users
from segmentql.principal import Actor
from segmentql.tables import RowOutcome
from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql
from tests.keys.clients import make_client
from tests.operations import (
    create_user,
    make_segments,
    update_segment_members,
    update_user_segments,
)
from tests.pooler import NEEDS_DIRECT_SESSION
from tests.rollouts.graphql_client import set_rollout
from tests.timeline import add_members as insert_members
from tests.timeline import history_inconsistencies, make_segment

ADA = Actor("ada", "adaadaadaada")
IMPORT = {"actor": ADA, "import_id": 77}
BY_IMPORT = ("ada", "adaadaadaada", 77)


def nonempty(outcomes: Mapping[RowOutcome, Sequence[int]]) -> dict[str, list[int]]:
    return {outcome: sorted(user_ids) for outcome, user_ids in outcomes.items() if user_ids}


async def add(database: Database, user_ids: list[int], **fields: Any) -> dict[str, list[int]]:
    async def work(session: WriteSession) -> dict[str, list[int]]:
        await lock_segment_for_members(session, 1, store_ids=user_ids)
        await lock_users(session, store_ids=user_ids)
        return nonempty(await add_members(session, segment_id=1, user_ids=user_ids, **fields))

    return await database.transaction(work)


async def remove(database: Database, user_ids: list[int], **fields: Any) -> dict[str, list[int]]:
    async def work(session: WriteSession) -> dict[str, list[int]]:
        await lock_segment_for_members(session, 1)
        await lock_users(session, find_ids=user_ids)
        return nonempty(await remove_members(session, segment_id=1, user_ids=user_ids, **fields))

    return await database.transaction(work)


async def authors(sql: Sql, table: str, columns: str, order: str) -> list[Any]:
    rows = await sql.fetch(
        f"SELECT {columns}, actor, api_key_id, import_id FROM {table} ORDER BY {order}"
    )
    return [tuple(row) for row in rows]


async def test_users_are_returned_by_outcome(sql: Sql, database: Database) -> None:
    await make_segment(sql, "A")
    assert await add(database, [1, 2, 3]) == {"JOINED": [1, 2, 3]}
    assert await add(database, [3, 4, 2]) == {"JOINED": [4], "ALREADY_IN": [2, 3]}
    await sql.execute("INSERT INTO users (id, created_at) VALUES (5, now())")
    assert await remove(database, [5, 1]) == {"LEFT": [1], "NOT_IN": [5]}


async def test_changes_of_an_import_record_it(sql: Sql, database: Database) -> None:
    await make_segment(sql, "A")
    await insert_membership(sql, 3, "A", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 4, "A", joined_at=NOON, cause="ROLLOUT")
    await insert_membership(sql, 5, "A", joined_at=NOON)
    await add(database, [1, 2, 3, 4, 5], **IMPORT)
    assert await authors(sql, "memberships", "user_id", "user_id") == [
        *((user_id, *BY_IMPORT) for user_id in (1, 2, 3, 4)),
        (5, None, None, None),
    ]
    await remove(database, [1, 3], **IMPORT)
    await add(database, [1], **IMPORT)
    await remove(database, [2])
    columns = "user_id, operation::text"
    assert (await authors(sql, "history", columns, "position"))[3:] == [
        (3, "LEFT", None, None, None),  # expired
        (1, "JOINED", *BY_IMPORT),
        (2, "JOINED", *BY_IMPORT),
        (3, "JOINED", *BY_IMPORT),
        (1, "LEFT", *BY_IMPORT),
        (3, "LEFT", *BY_IMPORT),
        (1, "JOINED", *BY_IMPORT),
        (2, "LEFT", None, None, None),
    ]
    assert await authors(sql, "exclusion_log", columns, "id") == [
        (1, "EXCLUDED", *BY_IMPORT),
        (3, "EXCLUDED", *BY_IMPORT),
        (1, "ADMITTED", *BY_IMPORT),
        (2, "EXCLUDED", None, None, None),
    ]
    assert await authors(sql, "exclusions", "user_id", "user_id") == [
        (2, None, None, None),
        (3, *BY_IMPORT),
    ]
    assert await history_inconsistencies(sql) == {}


async def test_changes_of_a_client_record_its_key(
    sql: Sql, database: Database, auth_api: Api
) -> None:
    ada = await make_client(auth_api, database, "ada")
    await make_segments(ada, "A")
    await update_segment_members(ada, "A", add=[1], addKeys=["k"])
    await update_segment_members(ada, "A", remove=[1])
    await update_segment_members(ada, "A", add=[1])
    author = ("ada", ada.key.public_id, None)
    for table in ("memberships", "history", "exclusion_log"):
        found = await authors(sql, table, "user_id", "user_id")
        assert {row[1:] for row in found} == {author}, table
    rows = await sql.fetch("SELECT created_by, created_by_api_key_id FROM users")
    assert [tuple(row) for row in rows] == [author[:2]] * 2


async def test_removal_without_exclusion_excludes_nobody(sql: Sql, database: Database) -> None:
    await make_segment(sql, "A")
    await add(database, [1, 2, 3])
    await remove(database, [3])
    assert await remove(database, [1, 3], exclude=False) == {"LEFT": [1], "NOT_IN": [3]}
    assert await authors(sql, "exclusions", "user_id", "user_id") == [(3, None, None, None)]


async def test_lock_of_an_unknown_segment_returns_none(sql: Sql, database: Database) -> None:
    segment_id = await make_segment(sql, "A")
    await sql.execute("UPDATE segments SET deleted_at = now()")
    for segment in (segment_id, segment_id + 1, "A", "NOPE"):
        assert (
            await database.transaction(
                lambda session, segment=segment: lock_segment_for_members(session, segment)  # type: ignore[misc]
            )
            is None
        )


async def test_users_are_locked_stored_and_found(sql: Sql, database: Database, api: Api) -> None:
    await create_user(api, id="1", key="one")
    await create_user(api, id="2", key="two")
    await create_user(api, id="3")
    locked = await database.transaction(
        lambda session: lock_users(
            session,
            store_ids=[3, 4, 4],
            find_ids=[1, 5],
            store_keys=["two", "new", "new"],
            find_keys=["one", "unknown"],
            actor=ADA,
        )
    )
    assert locked.found_ids == {1}
    new_id = 100_000_000_000_000
    assert locked.ids_by_key == {"one": 1, "two": 2, "new": new_id}
    rows = await sql.fetch("SELECT id, key, created_by FROM users ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (1, "one", None),
        (2, "two", None),
        (3, None, None),
        (4, None, "ada"),
        (new_id, "new", "ada"),
    ]


@NEEDS_DIRECT_SESSION
async def test_changes_scan_no_whole_table(sql: Sql, database: Database) -> None:
    """Plans are cached, and a plan for an empty table would be used while the table grows.

    The statistics of other tests may say that `segments` and `rollouts` have one page, so they
    may be scanned.
    """
    segment_id = await make_segment(sql, "A")
    user_ids = list(range(1, 301))

    async def change(session: WriteSession) -> list[str]:
        await lock_segment_for_members(session, segment_id)
        users = await lock_users(
            session, store_ids=user_ids, store_keys=["a"], find_keys=["b"], find_ids=[999]
        )
        ids = [*user_ids, *users.ids_by_key.values()]
        await add_members(session, segment_id=segment_id, user_ids=ids)
        await remove_members(session, segment_id=segment_id, user_ids=ids)
        scanned = await session.execute(
            text("""
            SELECT relname FROM pg_stat_xact_user_tables
            WHERE seq_scan > 0 AND relname NOT IN ('segments', 'rollouts')
            """)
        )
        return list(scanned.scalars())

    await sql.execute("VACUUM ANALYZE users, memberships, exclusions, history")
    for _ in range(8):  # PostgreSQL caches a plan after some executions
        assert await database.transaction(change) == []


async def test_hundreds_of_new_keys_take_few_locks(sql: Sql, database: Database) -> None:
    """PostgreSQL's table of locks has room for about 64 locks per connection."""
    await make_segment(sql, "A")

    async def count_locks(session: WriteSession) -> int:
        await lock_segment_for_members(session, "A")
        await lock_users(session, store_keys=[f"k{number}" for number in range(1000)])
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7003"
        return int((await session.execute(text(locks))).scalar_one())

    assert await database.transaction(count_locks) == 64
    assert await database.transaction(count_locks) == 0  # all keys are stored


async def test_new_users_lock_the_segments_that_enroll_them_first(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "A", "B", "C")
    assert (await set_rollout(api, {"percent": 100}, "C"))["errors"] == []
    await update_user_segments(api, 1)

    async def locked_segments(session: WriteSession, **users: Any) -> list[int]:
        await lock_segment_for_members(session, "B", **users)
        locks = "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND classid = 7001"
        return sorted((await session.execute(text(locks))).scalars())

    for users, expected in (
        ({}, [2]),
        ({"store_ids": [1]}, [2]),
        ({"store_ids": [1, 2]}, [2, 3]),
        ({"store_keys": ["k"]}, [2, 3]),
    ):
        assert (
            await database.transaction(
                lambda session, users=users: locked_segments(session, **users)  # type: ignore[misc]
            )
            == expected
        )


async def test_change_of_users_with_much_history_is_later_than_it(
    sql: Sql, database: Database
) -> None:
    """Also if the clock was set back, or another transaction began later and committed first."""
    segment_id = await make_segment(sql, "A")
    other_id = await make_segment(sql, "B")
    await insert_members(sql, other_id, 3)
    await sql.execute(
        """
        INSERT INTO history
            (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
        VALUES (2, now() + interval '1 hour', $1, 'LEFT', 1, 'MANUAL', now())
        """,
        other_id,
    )
    last = await sql.fetchval("SELECT max(at) FROM history")
    await add(database, [1, 2, 3])
    joined = await sql.fetch(
        "SELECT DISTINCT joined_at FROM memberships WHERE segment_id = $1", segment_id
    )
    assert [(row["joined_at"] - last).microseconds for row in joined] == [1]
