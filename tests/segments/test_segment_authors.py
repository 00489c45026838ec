"""`segments` records the API key that created, last changed and deleted each segment."""

from typing import Any

import pytest

from segmentql.adapters.database import Database
from tests.back_dating import all_rows
from tests.conftest import Api, Sql
from tests.keys.clients import KeyClient, make_client
from tests.operations import create_segment, delete_segment, update_segment
from tests.rollouts.graphql_client import cancel_rollout, pause_rollout, set_rollout


@pytest.fixture
async def ada(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "ada")


@pytest.fixture
async def bob(auth_api: Api, database: Database) -> KeyClient:
    return await make_client(auth_api, database, "bob")


async def authors(sql: Sql) -> tuple[Any, ...]:
    """Return created_by, updated_by, deleted_by and the API key id of the deletion."""
    row = await sql.fetchrow(
        "SELECT created_by, updated_by, deleted_by, deleted_by_api_key_id FROM segments"
    )
    return tuple(row or ())


async def test_creation_change_and_deletion_record_their_authors(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await create_segment(ada, slug="A")
    assert await authors(sql) == ("ada", "ada", None, None)
    await update_segment(bob, slug="A", name="New")
    assert await authors(sql) == ("ada", "bob", None, None)
    await delete_segment(ada, "A")
    assert await authors(sql) == ("ada", "bob", "ada", ada.key.public_id)


async def test_update_without_a_difference_keeps_the_author(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await create_segment(ada, slug="A", name="Same")
    await update_segment(bob, slug="A", name="Same")
    assert await authors(sql) == ("ada", "ada", None, None)


async def test_author_changes_exactly_when_the_version_does(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await create_segment(ada, slug="A", rollout={"percent": 10})
    assert await authors(sql) == ("ada", "ada", None, None)
    await pause_rollout(bob)
    await cancel_rollout(bob)
    assert (await authors(sql), await sql.fetchval("SELECT version FROM segments")) == (
        ("ada", "ada", None, None),
        1,
    )
    await set_rollout(bob, {"percent": 20})
    assert (await authors(sql), await sql.fetchval("SELECT version FROM segments")) == (
        ("ada", "bob", None, None),
        2,
    )


async def test_rejected_changes_keep_the_authors(sql: Sql, ada: KeyClient, bob: KeyClient) -> None:
    await create_segment(ada, slug="A")
    before = {**await all_rows(sql), "api_keys": []}
    assert (await create_segment(bob, slug="A"))["errors"] != []
    assert (await update_segment(bob, slug="A", name="New", expectedVersion=2))["errors"] != []
    assert (await delete_segment(bob, "A", expectedVersion=2))["errors"] != []
    assert {**await all_rows(sql), "api_keys": []} == before
