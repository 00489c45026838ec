"""API keys over GraphQL are created, listed and revoked, and a key's name is the actor."""

import asyncio
import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.principal import NO_ACTOR
from tests.conftest import Api, Sql, until
from tests.keys.clients import (
    CREATE_KEY,
    REVOKE_KEY,
    Key,
    bearer,
    make_key,
    query_data,
    send_query,
    stored_rows,
)
from tests.operations import parse_timestamp

LIST = """
query Keys($first: Int, $after: String) {
  apiKeys(first: $first, after: $after) {
    nodes { id name role createdAt createdBy lastUsedAt revokedAt }
    edges { cursor node { id } }
    pageInfo { hasNextPage endCursor }
  }
}
"""


@pytest.fixture
async def admin(database: Database) -> Key:
    return await make_key(database, "ADMIN", "root")


async def create(api: Api, admin: Key, **fields: Any) -> Any:
    return (await query_data(api, admin, CREATE_KEY, input=fields))["createApiKey"]


async def revoke_by(api: Api, admin: Key, key_id: str) -> Any:
    return (await query_data(api, admin, REVOKE_KEY, input={"id": key_id}))["revokeApiKey"]


async def test_token_is_shown_once_and_only_a_hash_of_it_is_stored(
    auth_api: Api, admin: Key, sql: Sql
) -> None:
    payload = await create(auth_api, admin, name="ada", role="EDITOR")
    assert payload["errors"] == []
    token = payload["token"]
    records = re.fullmatch(r"sgql_([a-z0-9]{12})_([0-9a-f]{64})", token)
    assert records
    public_id, secret = records.groups()
    key = payload["apiKey"]
    assert parse_timestamp(key.pop("createdAt")) <= await sql.fetchval("SELECT clock_timestamp()")
    assert key == {
        "id": f"key_{public_id}",
        "name": "ada",
        "role": "EDITOR",
        "createdBy": "root",
        "lastUsedAt": None,
        "revokedAt": None,
    }
    stored = await sql.fetchrow("SELECT * FROM api_keys WHERE public_id = $1", public_id)
    assert stored
    assert stored["secret_hash"] == hashlib.sha256(secret.encode()).digest()
    assert secret not in str(await stored_rows(sql))
    listed = await query_data(auth_api, admin, LIST)
    assert secret not in str(listed)
    viewer = await query_data(auth_api, Key(public_id, token), "{ viewer { name role keyId } }")
    assert viewer == {"viewer": {"name": "ada", "role": "EDITOR", "keyId": f"key_{public_id}"}}


async def test_keys_of_the_same_name_have_different_ids_and_secrets(
    auth_api: Api, admin: Key
) -> None:
    created = [await create(auth_api, admin, name="ada", role="READER") for _ in range(20)]
    assert len({payload["token"].split("_")[1] for payload in created}) == 20
    assert len({payload["token"].split("_")[2] for payload in created}) == 20


async def test_invalid_name_is_rejected_and_creates_no_key(
    auth_api: Api, admin: Key, sql: Sql
) -> None:
    before = await stored_rows(sql)
    for name in ("", "a" * 256, "a\0b"):
        payload = await create(auth_api, admin, name=name, role="READER")
        assert (payload["apiKey"], payload["token"]) == (None, None)
        (error,) = payload["errors"]
        assert (error["__typename"], error["code"]) == ("InvalidInput", "INVALID_INPUT")
        assert error["path"] == ["name"]
    assert await stored_rows(sql) == before


async def test_keys_are_listed_newest_first_with_pagination(auth_api: Api, admin: Key) -> None:
    created = [
        (await create(auth_api, admin, name=f"key {n}", role="READER"))["apiKey"]["id"]
        for n in range(5)
    ]
    expected_ids = [*reversed(created), f"key_{admin.public_id}"]
    listed_ids, after, has_more = [], None, True
    while has_more:
        page = (await query_data(auth_api, admin, LIST, first=2, after=after))["apiKeys"]
        assert [edge["node"]["id"] for edge in page["edges"]] == [n["id"] for n in page["nodes"]]
        listed_ids += [node["id"] for node in page["nodes"]]
        after, has_more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    assert listed_ids == expected_ids


async def test_revoked_key_stays_listed_and_revoking_is_idempotent(
    auth_api: Api, admin: Key, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "EDITOR", "ada")
    payload = await revoke_by(auth_api, admin, f"key_{key.public_id}")
    assert payload["errors"] == []
    revoked = payload["apiKey"]
    assert (revoked["id"], revoked["name"]) == (f"key_{key.public_id}", "ada")
    assert parse_timestamp(revoked["createdAt"]) < parse_timestamp(revoked["revokedAt"])
    assert (await query_data(auth_api, admin, LIST))["apiKeys"]["nodes"][0] == revoked
    assert await sql.fetchval("SELECT revoked_by FROM api_keys WHERE name = 'ada'") == "root"

    before = await stored_rows(sql)
    row = await sql.fetchval("SELECT xmin::text FROM api_keys WHERE name = 'ada'")
    assert await revoke_by(auth_api, admin, f"key_{key.public_id}") == payload
    assert await stored_rows(sql) == before
    assert await sql.fetchval("SELECT xmin::text FROM api_keys WHERE name = 'ada'") == row


async def test_concurrent_revocations_of_a_key_return_the_same_result(
    auth_api: Api, admin: Key, database: Database
) -> None:
    key = await make_key(database, "READER")
    payloads = await asyncio.gather(
        *(revoke_by(auth_api, admin, f"key_{key.public_id}") for _ in range(8))
    )
    assert all(payload == payloads[0] and payload["errors"] == [] for payload in payloads)


async def test_key_can_revoke_itself(auth_api: Api, admin: Key) -> None:
    payload = await revoke_by(auth_api, admin, f"key_{admin.public_id}")
    assert payload["errors"] == []

    async def is_rejected() -> bool:
        return (
            await send_query(auth_api, bearer(admin.token), "{ __typename }")
        ).status_code == 401

    await until(is_rejected, seconds=10)


async def test_invalid_key_id_is_rejected_without_being_quoted(
    auth_api: Api, admin: Key, sql: Sql
) -> None:
    before = await stored_rows(sql)
    unknown = await revoke_by(auth_api, admin, "key_aaaaaaaaaaaa")
    assert unknown == {
        "apiKey": None,
        "errors": [
            {
                "__typename": "ApiKeyNotFound",
                "code": "API_KEY_NOT_FOUND",
                "message": "No API key has the id key_aaaaaaaaaaaa.",
                "path": ["id"],
                "id": "key_aaaaaaaaaaaa",
            }
        ],
    }
    # A client may send a whole key instead of the id; the secret must not be in a response or a
    # log.
    for key_id in ("", "key_", "key_AAAAAAAAAAAA", "key_aaaaaaaaaaaa\n", admin.token):
        (error,) = (await revoke_by(auth_api, admin, key_id))["errors"]
        assert error == {
            "__typename": "InvalidInput",
            "code": "INVALID_INPUT",
            "message": "id is not valid: the value is not a key id."
            " Allowed: the `id` of a key: key_ and 12 characters of a-z 0-9.",
            "path": ["id"],
            "allowed": "the `id` of a key: key_ and 12 characters of a-z 0-9",
        }
    assert await stored_rows(sql) == before


async def test_actor_of_all_records_is_the_name_of_the_key(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    key = await make_key(database, "ADMIN", "Ada of Search")
    await query_data(
        auth_api,
        key,
        """mutation {
          a: createSegment(input: {slug: "A"}) { errors { message } }
          b: createSegment(input: {slug: "B", rollout: {stages: [{percent: 1}]}}) {
            errors { message } }
          c: updateUserSegments(input: {userId: 1, add: ["A", "B"]}) { errors { message } }
          d: updateUserSegments(input: {userId: 1, remove: ["B"]}) { errors { message } }
          e: createReport(input: {year: 2024, month: 3, waitSeconds: 0}) { errors { message } }
        }""",
    )
    records = await query_data(
        auth_api,
        key,
        "{ history { nodes { actor } } user(id: 1) { memberships { actor } } }",
    )
    assert records == {
        "history": {"nodes": [{"actor": "Ada of Search"}] * 3},
        "user": {"memberships": [{"actor": "Ada of Search"}]},
    }
    await query_data(
        auth_api,
        key,
        """mutation {
          f: deleteUser(input: {id: 1}) { errors { message } }
          g: deleteSegment(input: {slug: "A"}) { errors { message } }
        }""",
    )
    assert await sql.fetchval("SELECT array_agg(DISTINCT actor) FROM history") == ["Ada of Search"]
    assert await sql.fetchval("SELECT actor FROM reports") == "Ada of Search"
    assert await sql.fetchval("SELECT actor FROM rollouts") == "Ada of Search"
    assert await sql.fetchval("SELECT deleted_by FROM segments WHERE slug = 'A'") == (
        "Ada of Search"
    )


async def test_actor_is_null_if_keys_are_off(api: Api, sql: Sql) -> None:
    await api('mutation { createSegment(input: {slug: "A"}) { errors { message } } }')
    await api('mutation { updateUserSegments(input: {userId: 1, add: ["A"]}) { segmentsAdded } }')
    created = (await api(CREATE_KEY, input={"name": "ada", "role": "READER"}))["createApiKey"]
    assert created["apiKey"]["createdBy"] is None
    assert await sql.fetchval("SELECT array_agg(DISTINCT actor) FROM history") == [None]


async def test_first_key_is_stored_once_and_stays_revoked(database: Database, sql: Sql) -> None:
    token = "sgql_firstfirst12_" + "a" * 64

    async def ensure() -> bool:
        return await database.transaction(lambda session: service.ensure_first_key(session, token))

    assert sorted(await asyncio.gather(*(ensure() for _ in range(8)))) == [False] * 7 + [True]
    row = await sql.fetchrow("SELECT name, role, created_by, revoked_at FROM api_keys")
    assert row
    assert tuple(row) == ("first", "ADMIN", None, None)
    await database.transaction(
        lambda session: service.revoke_key(session, "firstfirst12", actor=NO_ACTOR)
    )
    before = await stored_rows(sql)
    assert await ensure() is False
    assert await stored_rows(sql) == before
    assert timedelta(0) < await sql.fetchval("SELECT revoked_at - created_at FROM api_keys")
