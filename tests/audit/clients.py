"""Clients with API keys, and reads of the audit log as a client makes them."""

import json
from dataclasses import dataclass
from typing import Any

from tests.conftest import Api
from tests.keys.clients import Key, bearer

ENTRY = "id at actor action target before after requestId"

AUDIT_LOG = f"""
query Log(
  $first: Int, $after: String, $slug: String, $actor: String, $from: DateTime, $to: DateTime
) {{
  auditLog(first: $first, after: $after, slug: $slug, actor: $actor, from: $from, to: $to) {{
    nodes {{ {ENTRY} }} edges {{ cursor }} pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""


@dataclass(frozen=True)
class Client:
    """A client that sends an API key and the id of each request."""

    api: Api
    key: Key

    async def __call__(self, query: str, *, request_id: str = "req-1", **variables: Any) -> Any:
        """Return the data of an operation that must succeed."""
        body = await self.body(query, request_id=request_id, **variables)
        assert "errors" not in body, body["errors"]
        return body["data"]

    async def body(self, query: str, *, request_id: str = "req-1", **variables: Any) -> Any:
        response = await self.api.http.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": bearer(self.key.token), "x-request-id": request_id},
        )
        return response.json()

    async def change(self, mutation: str, arguments: str, *, request_id: str = "req-1") -> None:
        """Send a mutation that must succeed."""
        document = f"mutation {{ {mutation}(input: {{{arguments}}}) {{ errors {{ message }} }} }}"
        assert await self(document, request_id=request_id) == {mutation: {"errors": []}}

    async def reject(self, mutation: str, arguments: str, code: str) -> None:
        """Send a mutation that must be rejected."""
        document = f"mutation {{ {mutation}(input: {{{arguments}}}) {{ errors {{ code }} }} }}"
        assert await self(document) == {mutation: {"errors": [{"code": code}]}}


async def log(client: Client | Api, **arguments: Any) -> list[Any]:
    """Return a page of the log, with `before` and `after` decoded."""
    nodes = (await client(AUDIT_LOG, **arguments))["auditLog"]["nodes"]
    for node in nodes:
        for field in ("before", "after"):
            if node[field] is not None:
                node[field] = json.loads(node[field])
    return list(nodes)


def summary(entry: Any) -> tuple[str, str, str | None, str | None]:
    return entry["action"], entry["target"], entry["actor"], entry["requestId"]
