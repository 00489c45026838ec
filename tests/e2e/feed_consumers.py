"""Consumers of the change feed that disconnect at random and continue at their cursor."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.conftest import until

BATCH: Final = """
cursor caughtUp events {
  cursor at
  ... on MembershipEvent { entry { id at userId operation cause segment { id slug } } }
}
"""
PULL: Final = f"""
query Pull($after: String, $wait: Int!, $filter: FeedFilter) {{
  changes(after: $after, first: 200, waitSeconds: $wait, filter: $filter) {{ {BATCH} }}
}}
"""
STREAM: Final = f"""
subscription Follow($after: String, $filter: FeedFilter) {{
  changes(after: $after, batch: 50, filter: $filter) {{ {BATCH} }}
}}
"""
CATCH_UP_SECONDS: Final = 120


class Interrupted(Exception):
    """The server ended or rejected a request. The consumer sends it again."""


@dataclass
class Consumer:
    """A consumer that stores its cursor after each batch."""

    name: str
    addresses: Sequence[str]
    """The addresses of the API. Each request goes to a random one."""

    is_stream: bool
    change_filter: Mapping[str, Any] | None = None
    cursor: str | None = None
    entries: list[Any] = field(default_factory=list)
    requests: int = 0
    client_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.name)  # noqa: S311 - similar each time

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=60, **self.client_options)

    async def start(self) -> None:
        """Read the cursor of the head, without changes."""
        async with self.client() as http:
            batch = await self._pull(http, wait_seconds=0)
        assert batch["events"] == []
        self.cursor = batch["cursor"]

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the feed, and disconnect at random."""
        async with self.client() as http:
            while not stop.is_set():
                try:
                    async with asyncio.timeout(self._random.uniform(0.2, 6)):
                        await self._follow(http, stop)
                except TimeoutError:
                    pass  # It has disconnected.
                except (Interrupted, httpx.TransportError):
                    await asyncio.sleep(0.2)

    async def catch_up(self) -> None:
        """Read all changes that are recorded now."""

        async def is_caught_up() -> bool:
            try:
                async with self.client() as http:
                    batch = await self._pull(http, wait_seconds=0)
            except (Interrupted, httpx.TransportError):
                return False
            self._store(batch)
            return bool(batch["caughtUp"] and not batch["events"])

        await until(is_caught_up, seconds=CATCH_UP_SECONDS)

    async def _follow(self, http: httpx.AsyncClient, stop: asyncio.Event) -> None:
        if not self.is_stream:
            while not stop.is_set():
                self._store(await self._pull(http, wait_seconds=self._random.randint(0, 3)))
            return
        async with aclosing(self._batches(http)) as batches:
            async for batch in batches:
                self._store(batch)
                if stop.is_set():
                    return
        raise Interrupted("the stream ended")

    def _store(self, batch: Any) -> None:
        # Without an await in between, so that a disconnection cannot separate the two.
        self.entries += [event["entry"] for event in batch["events"]]
        self.cursor = batch["cursor"]

    async def _pull(self, http: httpx.AsyncClient, *, wait_seconds: int) -> Any:
        self.requests += 1
        variables = {"after": self.cursor, "wait": wait_seconds, "filter": self.change_filter}
        response = await http.post(self._url(), json={"query": PULL, "variables": variables})
        return self._batch(response.json())

    async def _batches(self, http: httpx.AsyncClient) -> AsyncGenerator[Any]:
        self.requests += 1
        body = {
            "query": STREAM,
            "variables": {"after": self.cursor, "filter": self.change_filter},
        }
        headers = {"accept": "text/event-stream"}
        async with http.stream("POST", self._url(), json=body, headers=headers) as response:
            if not response.headers["content-type"].startswith("text/event-stream"):
                raise Interrupted((await response.aread()).decode())
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if not line and fields.get("event") == "next":
                    batch = self._batch(json.loads(fields["data"]))
                    assert fields["id"] == batch["cursor"]
                    yield batch
                if not line:
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")

    def _batch(self, body: Any) -> Any:
        if "errors" in body:
            codes = {error["extensions"]["code"] for error in body["errors"]}
            assert codes <= {"UNAVAILABLE", "TIMEOUT"}, body
            raise Interrupted(str(body))
        return body["data"]["changes"]

    def _url(self) -> str:
        return f"{self._random.choice(self.addresses)}/graphql"
