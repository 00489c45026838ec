"""`users` records who stored each user, and `user_lifetimes` has the earlier lifetimes of an id."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.keys.clients import KeyClient, make_client
from tests.operations import create_user, delete_user, make_segments, update_user_segments

CREATED = "id, created_at, created_by, created_by_api_key_id"
LIFETIME = """
user_id, created_at, created_by, created_by_api_key_id,
deleted_at, deleted_by, deleted_by_api_key_id
"""


@pytest.fixture
async def ada(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "ada")


@pytest.fixture
async def bob(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "bob")


async def stored(sql: Sql) -> list[Any]:
    """Return id, actor and API key id of each stored user."""
    rows = await sql.fetch("SELECT id, created_by, created_by_api_key_id FROM users ORDER BY id")
    return [tuple(row) for row in rows]


async def test_each_way_to_store_a_user_records_the_key(sql: Sql, ada: KeyClient) -> None:
    await make_segments(ada, "A")
    author = ("ada", ada.key.public_id)
    await create_user(ada, id="7")
    await create_user(ada)
    await update_user_segments(ada, 9, add=["A"])
    assert await stored(sql) == [(1, *author), (7, *author), (9, *author)]


async def test_later_changes_keep_the_key_that_stored_the_user(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    await create_user(ada, id="7")
    before = await sql.fetch(f"SELECT {CREATED} FROM users")
    assert (await create_user(bob, id="7"))["errors"] != []
    await update_user_segments(bob, 7, add=["A"])
    assert await sql.fetch(f"SELECT {CREATED} FROM users") == before


async def test_user_stored_without_authentication_has_no_author(api: Api, sql: Sql) -> None:
    await create_user(api, id="7")
    assert await stored(sql) == [(7, None, None)]
    await delete_user(api, 7)
    row = await sql.fetchrow("SELECT created_by, deleted_by FROM user_lifetimes")
    assert tuple(row or ()) == (None, None)


async def test_each_lifetime_of_an_id_is_recorded_once(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    expected = []
    for creator, name, deleter, other in (
        (ada, "ada", bob, "bob"),
        (bob, "bob", ada, "ada"),
        (ada, "ada", ada, "ada"),
    ):
        await create_user(creator, id="7")
        created_at = await sql.fetchval("SELECT created_at FROM users")
        await delete_user(deleter, 7)
        deleted_at = await sql.fetchval("SELECT deleted_at FROM deleted_users")
        expected.append(
            (7, created_at, name, creator.key.public_id, deleted_at, other, deleter.key.public_id)
        )
    await create_user(bob, id="7")
    rows = await sql.fetch(f"SELECT {LIFETIME} FROM user_lifetimes ORDER BY user_id, id")
    assert [tuple(row) for row in rows] == expected
    moments = [moment for row in expected for moment in (row[1], row[4])]
    assert moments == sorted(set(moments))
    assert await stored(sql) == [(7, "bob", bob.key.public_id)]


async def test_rejected_deletion_records_no_lifetime(sql: Sql, ada: KeyClient) -> None:
    await create_user(ada, id="7")
    before = {**await all_rows(sql), "api_keys": []}
    assert (await delete_user(ada, 8))["errors"] != []
    assert {**await all_rows(sql), "api_keys": []} == before


async def test_deletion_of_many_users_records_each(sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO users (id, created_at) SELECT n, now() FROM generate_series(1, 3) n"
    )
    await sql.execute("DELETE FROM users WHERE id > 1")
    rows = await sql.fetch(f"SELECT {LIFETIME} FROM user_lifetimes ORDER BY user_id")
    assert [row["user_id"] for row in rows] == [2, 3]
    assert all(row["created_at"] < row["deleted_at"] for row in rows)
