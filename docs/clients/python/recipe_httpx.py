"""SegmentQL with httpx alone. Usage: python recipe_httpx.py USER_KEY"""

import asyncio
import os
import sys
import uuid
from datetime import datetime
from typing import Any

import httpx

from retries import RetryTransport

USER = "query($id: ID!) { user(id: $id) { segments { slug } } }"
CREATE_USER = """mutation($input: CreateUserInput!) { createUser(input: $input) {
  user { id createdAt }
  errors { __typename code message ... on UserAlreadyExists { user { id } } } } }"""


class GraphQLError(Exception):
    """The field `errors` of a response. `code` is the code of the first one."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors[0]["message"])
        self.code: str = errors[0].get("extensions", {}).get("code", "")


def open_client() -> httpx.AsyncClient:
    headers = {}
    if api_key := os.environ.get("SEGMENTQL_API_KEY"):
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        base_url=os.environ.get("SEGMENTQL_URL", "http://127.0.0.1:8080"),
        headers=headers,
        transport=RetryTransport(),
    )


async def execute(
    client: httpx.AsyncClient,
    document: str,
    *,
    idempotency_key: str = "",
    seconds: float = 2,
    **variables: Any,
) -> Any:
    """Execute an operation with a time limit for each attempt, and return its data."""
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    body = {"query": document, "variables": variables}
    response = await client.post("/graphql", json=body, headers=headers, timeout=seconds)
    if "json" not in response.headers.get("content-type", ""):
        response.raise_for_status()
    result = response.json()
    if errors := result.get("errors"):
        raise GraphQLError(errors)
    return result["data"]


async def main(key: str) -> None:
    async with open_client() as client:
        new = {"key": key}
        data = await execute(client, CREATE_USER, idempotency_key=str(uuid.uuid4()), input=new)
        user, errors = data["createUser"]["user"], data["createUser"]["errors"]
        match errors:
            case []:
                created_at = datetime.fromisoformat(user["createdAt"])
                print("created", user["id"], created_at.tzname())
            case [{"__typename": "UserAlreadyExists", "user": {"id": user_id}}, *_]:
                print("exists", user_id)
            case [
                {"code": code, "message": message},
                *_,
            ]:  # also of later versions
                print("rejected", code, message)
        try:
            async with asyncio.timeout(0.5):
                user = (await execute(client, USER, seconds=0.2, id="1"))["user"]
        except (httpx.HTTPError, GraphQLError, TimeoutError):
            user = None  # your default if SegmentQL is unavailable
        print("segments", *(segment["slug"] for segment in (user or {"segments": []})["segments"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
