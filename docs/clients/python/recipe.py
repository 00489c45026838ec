"""SegmentQL with the client of ariadne-codegen. Usage: python recipe.py USER_KEY YEAR MONTH"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, cast

import httpx

from retries import RetryTransport
from segments_api import Client, CreateReportInput, CreateUserInput
from segments_api.create_user import CreateUserCreateUserErrorsUserAlreadyExists as UserExists
from segments_api.exceptions import GraphQLClientError
from segments_api.history import HistoryHistoryNodes as Entry

WAIT_SECONDS = 30


class Rejected(Exception):
    """SegmentQL rejected a mutation, which changed nothing."""


def open_client() -> Client:
    """Return a client that stops each attempt of a request after two seconds."""
    headers = {}
    if api_key := os.environ.get("SEGMENTQL_API_KEY"):
        headers["Authorization"] = f"Bearer {api_key}"
    http = httpx.AsyncClient(headers=headers, timeout=2, transport=RetryTransport())
    url = os.environ.get("SEGMENTQL_URL", "http://127.0.0.1:8080")
    return Client(url=f"{url}/graphql", http_client=cast("Any", http))


async def segments_of(client: Client, user_id: str) -> set[str]:
    """Return the segments of a user within half a second, for use in a request of your service."""
    try:
        async with asyncio.timeout(0.5):  # for all attempts together
            user = (await client.user_segments(user_id, timeout=0.2)).user
    except (httpx.TransportError, GraphQLClientError, TimeoutError):
        return set()  # your default if SegmentQL is unavailable
    return {segment.slug for segment in user.segments} if user else set()


async def create_user(client: Client, key: str) -> tuple[str, datetime | None]:
    """Create a user, and return its id, and the time of its creation if it is new."""
    # One key for all attempts. Store it with your own data if a later process may retry.
    idempotency_key = {"Idempotency-Key": str(uuid.uuid4())}
    result = await client.create_user(CreateUserInput(key=key), headers=idempotency_key)
    payload = result.create_user
    assert payload
    for error in payload.errors:
        if isinstance(error, UserExists):
            return error.user.id, None
        # Every other type, and those of later versions, have the fields of `MutationError`.
        raise Rejected(f"{error.typename__} {error.code.value} {error.path}: {error.message}")
    assert payload.user
    return payload.user.id, payload.user.created_at


async def history_of(client: Client, user_id: str) -> AsyncIterator[Entry]:
    """Yield the joins and leaves of a user, newest first, page by page."""
    after: str | None = None
    while True:
        page = (await client.history(user_id, first=2, after=after)).history
        if page is None:
            return
        for entry in page.nodes:
            yield entry
        if not page.page_info.has_next_page:
            return
        after = page.page_info.end_cursor


async def create_report(client: Client, user_id: str, year: int, month: int) -> int | None:
    """Create a report, wait for it, and return its number of rows."""
    result = await client.create_report(
        CreateReportInput(userId=user_id, year=year, month=month, waitSeconds=WAIT_SECONDS),
        headers={"Idempotency-Key": str(uuid.uuid4())},
        timeout=WAIT_SECONDS + 10,
    )
    payload = result.create_report
    assert payload
    if payload.report is None:
        raise Rejected(payload.errors[0].message)
    return payload.report.row_count


async def main(key: str, year: int, month: int) -> None:
    async with open_client() as client:
        user_id, created_at = await create_user(client, key)
        print("created", user_id, created_at.tzname() if created_at else None)
        user_id, _ = await create_user(client, key)
        print("exists", user_id)
        try:
            await create_user(client, "")
        except Rejected as error:
            print(error)
        print("segments", *sorted(await segments_of(client, "1")))
        async for entry in history_of(client, "1"):
            print(entry.operation.value, entry.segment.slug, entry.cause.value, entry.at.tzname())
        print("rows", await create_report(client, "1", year, month))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
