"""Events of a running service that the dashboards and alerts show."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx

from tests.conftest import until
from tests.e2e.prometheus import SCRAPE_SECONDS
from tests.e2e.up import Up

KEY = f"sgql_firstkeyfir0_{'5e' * 32}"


class Events:
    """Causes one event of each kind on a small scale."""

    def __init__(self, up: Up, client: httpx.AsyncClient) -> None:
        self._up = up
        self._client = client

    async def send(self, query: str, key: str = KEY, **headers: str) -> Any:
        response = await self._client.post(
            "/graphql", json={"query": query}, headers={"authorization": f"Bearer {key}", **headers}
        )
        return response.json()

    async def scraped(self, slice_: float = 3 * SCRAPE_SECONDS) -> None:
        """Send requests during `slice_`, so that Prometheus scrapes the current state."""
        end_time = asyncio.get_running_loop().time() + slice_
        while asyncio.get_running_loop().time() < end_time:
            await self.send("query Which { user(id: 1) { segments { slug } } }")
            await asyncio.sleep(0.1)

    async def read_and_change(self) -> None:
        for number in range(1, 21):
            await self.send(
                f"mutation {{ createUser(input: {{id: {number}}}) {{ user {{ id }} }} }}"
            )
        for slug in ("hand", "gone"):
            await self.send(
                f'mutation {{ createSegment(input: {{slug: "{slug}"}}) {{ segment {{ id }} }} }}'
            )
        add = 'mutation {{ updateUserSegments(input: {{userId: {}, add: ["hand", "gone"]{}}})'
        add += " {{ segmentsAdded }} }}"
        await self.send(add.format(1, ", ttlSeconds: 1"))
        await self.send(add.format(2, ""))
        await self.send("{ user(id: 0) { id } }")  # BAD_REQUEST
        await self.send("{ nothing }")  # rejected
        await self.send("{ user(id: 1) { id } }", key=f"sgql_{'z' * 12}_{'0' * 64}")
        await self.send(
            "mutation { createReport(input: {year: 2024, month: 3, waitSeconds: 30})"
            " { report { status } } }"
        )

    async def export_and_import(self) -> None:
        """Make an export, and an import from a segment."""
        await self.send(
            'mutation { createSegment(input: {slug: "copied"}) { segment { id } } }',
        )
        await self.send(
            'mutation { createExport(input: {slug: "hand", waitSeconds: 30})'
            " { export { status } } }"
        )
        created = await self.send(
            'mutation { createImport(input: {slug: "copied",'
            ' source: {segments: {anyOf: ["hand"]}}}) { import { id } } }'
        )
        import_id = created["data"]["createImport"]["import"]["id"]
        await self.send(
            f'mutation {{ startImport(input: {{id: "{import_id}", waitSeconds: 30}})'
            " { import { status } } }"
        )

    async def follow_changes(self) -> None:
        """Open a subscription, receive a change, and end it."""
        headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream"}
        subscription = {"query": "subscription { changes { events { __typename } } }"}
        async with self._client.stream(
            "POST", "/graphql", json=subscription, headers=headers
        ) as response:
            await self.send(
                'mutation { updateUserSegments(input: {userId: 5, add: ["hand"]})'
                " { segmentsAdded } }"
            )
            async for line in response.aiter_lines():
                if "MembershipEvent" in line:
                    break
            await self.scraped()
        await self.send("{ changes(start: EARLIEST) { events { __typename } } }")

    async def repeat_mutation(self) -> None:
        create = "mutation { createUser(input: {id: 100}) { user { id } } }"
        for _ in range(2):
            await self.send(create, **{"idempotency-key": "repeated"})

    async def send_malformed_request(self) -> None:
        """Send bytes that are not HTTP, so that the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._up.port)
        writer.write(b"not HTTP\r\n\r\n")
        await reader.read()
        writer.close()

    async def exceed_rate_limit(self) -> None:
        """Exceed the rate limit of one key by pipelined requests, which cost the client little.

        The server accepts nine at a time on a connection.
        """
        body = b'{"query": "query Burst { __typename }"}'
        request = (
            f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

        async def send_nine() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._up.port)
            try:
                writer.write(request * 9)
                received = b""
                while received.count(b"HTTP/1.1 ") < 9:
                    received += await reader.readexactly(1)
                    received += await reader.read(65536)
                return received
            finally:
                writer.close()

        async def one_is_rejected() -> bool:
            answers = await asyncio.gather(*(send_nine() for _ in range(110)))
            return b" 429 " in b"".join(answers)

        await until(one_is_rejected)

    async def suspend_worker_during_rollout(self) -> None:
        worker = self._up.pid_of("worker")
        assert worker is not None
        os.kill(worker, signal.SIGSTOP)
        try:
            await self.send(
                'mutation { createSegment(input: {slug: "all", rollout: {percent: 100}})'
                " { segment { id } } }"
            )
            await self.scraped()
        finally:
            os.kill(worker, signal.SIGCONT)

    async def cause_faults(self) -> None:
        """Cause a failing job and a failing check of the scheduler."""
        running_settings = json.loads((self._up.data / "run/settings.json").read_text())
        owner = await asyncpg.connect(running_settings["migration_database_url"])
        renamed_tables = {"exclusions": "lost_exclusions", "reports": "lost_reports"}
        try:
            for table, new_name in renamed_tables.items():
                await owner.execute(f"ALTER TABLE {table} RENAME TO {new_name}")
            await self.send('mutation { deleteSegment(input: {slug: "gone"}) { deletedId } }')
            await self.scraped()
        finally:
            for table, new_name in renamed_tables.items():
                await owner.execute(f"ALTER TABLE {new_name} RENAME TO {table}")
            await owner.close()

    async def suspend_redis(self) -> None:
        redis = self._up.pid_of("redis")
        assert redis is not None
        os.kill(redis, signal.SIGSTOP)
        try:
            await self.send(
                'mutation { updateUserSegments(input: {userId: 3, add: ["hand"], ttlSeconds: 1})'
                " { segmentsAdded } }"
            )
            await self.scraped(6 * SCRAPE_SECONDS)
        finally:
            os.kill(redis, signal.SIGCONT)

    async def cause_all(self) -> None:
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.read_and_change,
            self.scraped,
            self.suspend_worker_during_rollout,
            self.cause_faults,
            self.suspend_redis,
            self.scraped,
            self.export_and_import,
            self.follow_changes,
            self.repeat_mutation,
            self.send_malformed_request,
            self.exceed_rate_limit,
        )
        for step in steps:
            await step()
