"""API keys in the database, and clients that send a key or none."""

from dataclasses import dataclass
from typing import Any

import httpx

from segmentql.adapters.database import Database
from segmentql.keys import service
from segmentql.principal import NO_ACTOR
from segmentql.tables import Role
from tests.back_dating import all_rows
from tests.conftest import Api, Sql, without_cost

UNKNOWN = "sgql_aaaaaaaaaaaa_" + "0" * 64
VIEWER = "{ viewer { name role keyId } }"
CREATE_KEY = """
mutation Create($input: CreateApiKeyInput!) {
  createApiKey(input: $input) {
    apiKey { id name role createdAt createdBy lastUsedAt revokedAt }
    token
    errors { __typename code message path ... on InvalidInput { allowed } }
  }
}
"""
REVOKE_KEY = """
mutation Revoke($input: RevokeApiKeyInput!) {
  revokeApiKey(input: $input) {
    apiKey { id name role createdAt createdBy lastUsedAt revokedAt }
    errors {
      __typename code message path
      ... on InvalidInput { allowed }
      ... on ApiKeyNotFound { id }
    }
  }
}
"""


@dataclass(frozen=True)
class Key:
    """An API key with its secret."""

    public_id: str
    token: str

    @property
    def with_wrong_secret(self) -> str:
        replacement = "0" if self.token[-1] != "0" else "1"
        return self.token[:-1] + replacement


class KeyClient(Api):
    """An HTTP client of the application that sends an API key."""

    def __init__(self, api: Api, key: Key) -> None:
        super().__init__(api.http)
        self.key = key

    async def body(self, query: str, **variables: Any) -> Any:
        response = await send_query(self, bearer(self.key.token), query, **variables)
        return without_cost(response.json())


async def make_client(api: Api, database: Database, name: str) -> KeyClient:
    """Create an API key with the role ADMIN, and return a client that sends it."""
    return KeyClient(api, await make_key(database, "ADMIN", name))


async def make_key(database: Database, role: str, name: str = "ada") -> Key:
    row, token = await database.transaction(
        lambda session: service.create_key(session, name=name, role=Role(role), actor=NO_ACTOR)
    )
    return Key(row.public_id, token)


async def revoke(database: Database, key: Key) -> None:
    await database.transaction(
        lambda session: service.revoke_key(session, key.public_id, actor=NO_ACTOR)
    )


async def send_query(
    api: Api, authorization: str | None, query: str, **variables: Any
) -> httpx.Response:
    """Send a query, with an Authorization header unless it is None."""
    headers = {} if authorization is None else {"authorization": authorization}
    return await api.http.post(
        "/graphql", json={"query": query, "variables": variables}, headers=headers
    )


def bearer(token: str) -> str:
    return f"Bearer {token}"


async def query_data(api: Api, key: Key, query: str, **variables: Any) -> Any:
    """Return the data of an operation that must succeed."""
    body = (await send_query(api, bearer(key.token), query, **variables)).json()
    assert "errors" not in body, body["errors"]
    return body["data"]


async def stored_rows(sql: Sql) -> Any:
    """Return every row of every table, without `last_used_at`, which is written later."""
    keys = await sql.fetch("SELECT to_jsonb(k) - 'last_used_at' FROM api_keys k ORDER BY number")
    return {**await all_rows(sql), "api_keys": [str(key[0]) for key in keys]}
