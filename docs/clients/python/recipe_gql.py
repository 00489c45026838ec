"""SegmentQL with gql, without generated code. Usage: python recipe_gql.py USER_KEY"""

import asyncio
import os
import sys
import uuid
from datetime import datetime
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXAsyncTransport

from retries import RetryTransport

USER = "query($id: ID!) { user(id: $id) { segments { slug } } }"
CREATE_USER = """mutation($input: CreateUserInput!) { createUser(input: $input) {
  user { id createdAt }
  errors { __typename code message ... on UserAlreadyExists { user { id } } } } }"""


def open_client() -> Client:
    """Return a client that validates nothing: new types and enum values are accepted."""
    headers = {}
    if api_key := os.environ.get("SEGMENTQL_API_KEY"):
        headers["Authorization"] = f"Bearer {api_key}"
    url = os.environ.get("SEGMENTQL_URL", "http://127.0.0.1:8080") + "/graphql"
    # The other arguments are those of httpx.AsyncClient.
    transport = HTTPXAsyncTransport(url=url, headers=headers, timeout=2, transport=RetryTransport())
    return Client(transport=transport, execute_timeout=60, parse_results=False)


async def main(key: str) -> None:
    async with open_client() as session:
        result: dict[str, Any] = await session.execute(
            GraphQLRequest(CREATE_USER, variable_values={"input": {"key": key}}),
            extra_args={"headers": {"Idempotency-Key": str(uuid.uuid4())}},
        )
        user, errors = result["createUser"]["user"], result["createUser"]["errors"]
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
        request = GraphQLRequest(USER, variable_values={"id": "1"})
        try:
            async with asyncio.timeout(0.5):
                result = await session.execute(request, extra_args={"timeout": 0.2})
            user = result["user"]
        except (TransportError, httpx.TransportError, TimeoutError):
            user = None  # your default if SegmentQL is unavailable
        print("segments", *(segment["slug"] for segment in (user or {"segments": []})["segments"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
