"""Clients that change and read memberships and run jobs, and count every failed request."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.conftest import Sql, until
from tests.e2e.feed_consumers import Consumer, Interrupted
from tests.imports.lists import CREATE as CREATE_IMPORT
from tests.imports.lists import READ as READ_IMPORT
from tests.imports.lists import START as START_IMPORT
from tests.imports.lists import put
from tests.rollouts.helpers import expected_sample, members
from tests.rollouts.worker_helpers import READ as READ_ROLLOUT
from tests.rollouts.worker_helpers import SET as SET_ROLLOUT
from tests.timeline import history_inconsistencies

WRITERS: Final = 6
READERS: Final = 3
USERS: Final = 3000
LISTED: Final = 1200
"""The users of each import: more than one chunk."""
PERCENTS: Final = (20, 40)
FIRST_WRITER: Final = 1_000_001
PAUSE_SECONDS: Final = 0.15
JOB_SECONDS: Final = 120

SEGMENTS: Final = ("A", "B", "ROLLED", "STABLE")
"""The segments with the ids 1 to 4."""

UPDATE: Final = """
mutation($input: UpdateUserSegmentsInput!) {
  updateUserSegments(input: $input) { segmentsAdded segmentsRemoved errors { code message } }
}
"""
READ: Final = "query($id: ID!) { user(id: $id) { segments { slug } } }"
CREATE_SEGMENT: Final = """
mutation($slug: String!) { createSegment(input: {slug: $slug}) { errors { code message } } }
"""
CREATE_REPORT: Final = """
mutation($input: CreateReportInput!) {
  createReport(input: $input) { report { id } errors { code message } }
}
"""
READ_REPORT: Final = "query($id: ID!) { report(id: $id) { status failure downloadUrl } }"


async def store_load_rows(sql: Sql) -> int:
    """Store the users and segments that the clients use; return the last position in history."""
    await sql.execute(
        "INSERT INTO segments (slug, created_at, updated_at)"
        " SELECT slug, now(), now() FROM unnest($1::text[]) AS slug",
        list(SEGMENTS),
    )
    await sql.execute(
        "INSERT INTO users (id, created_at)"
        " SELECT id, now() FROM generate_series(1, $1::bigint) AS id",
        USERS,
    )
    await sql.execute(
        "INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)"
        " SELECT id, 4, now(), now(), 'MANUAL', 'ada' FROM generate_series(1, 100) AS id"
    )
    position: int = await sql.fetchval("SELECT max(position) FROM history")
    return position


@dataclass
class StrictConsumer(Consumer):
    """A consumer that disconnects only if the server ends its stream, and counts rejections."""

    failures: list[str] = field(default_factory=list)
    ended: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        async with self.client() as http:
            while not stop.is_set():
                try:
                    await self._follow(http, stop)
                except Interrupted as error:
                    self.ended += 1
                    if "the stream ended" not in str(error):
                        self.failures.append(f"{self.name}: {error}")
                except httpx.RemoteProtocolError:  # the stream was cut
                    self.ended += 1


@dataclass
class Load:
    """Clients of one or more addresses."""

    clients: list[httpx.AsyncClient]
    """One client for each address. Each request uses the next one."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    finished_jobs: dict[str, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    """The acknowledged changes of each writer's user."""

    consumers: list[StrictConsumer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turns = itertools.count()
        self._stop = asyncio.Event()
        self._percent = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run all clients meanwhile. At the end, wait until every job is finished."""
        for consumer in self.consumers:
            await consumer.start()
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(each.run(self._stop)) for each in self.consumers]
            for number in range(WRITERS):
                group.create_task(self._repeat(lambda n, u=number: self._write(u, n)))  # type: ignore[misc]
            for _ in range(READERS):
                group.create_task(self._repeat(self._read))
            for job in (self._run_import, self._run_rollout, self._run_report):
                group.create_task(self._repeat(job))
            try:
                yield
            finally:
                self._stop.set()
                for task in reading:
                    task.cancel()

    async def works(self, requests: int) -> None:
        """Wait for this many more requests."""
        goal = self.requests + requests

        async def is_reached() -> bool:
            return self.requests >= goal

        await until(is_reached, seconds=JOB_SECONDS)

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            await work(number)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send(
        self, query: str, variables: Mapping[str, Any], *, key: str | None = None
    ) -> Any:
        """Return the data of a response, or None for a failed request, which is noted."""
        client = self.clients[next(self._turns) % len(self.clients)]
        headers = {"idempotency-key": key} if key else {}
        self.requests += 1
        try:
            response = await client.post(
                "/graphql", json={"query": query, "variables": variables}, headers=headers
            )
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            return None
        if response.status_code != 200 or "errors" in response.json():
            self.failures.append(f"{response.status_code} {response.text}")
            return None
        return response.json()["data"]

    async def _mutate(self, query: str, variables: Mapping[str, Any]) -> Any:
        """Send a mutation with an idempotency key; return its payload."""
        data = await self._send(query, variables, key=uuid.uuid4().hex)
        if data is None:
            return None
        ((payload,),) = [data.values()]
        assert payload["errors"] == [], payload
        return payload

    async def _write(self, writer: int, number: int) -> None:
        user_id = FIRST_WRITER + writer
        add, remove = ("A", "B") if number % 2 == 0 else ("B", "A")
        fields = {"userId": str(user_id), "add": [add], "remove": [remove]}
        payload = await self._mutate(UPDATE, {"input": fields})
        if payload:
            self.writes[user_id] = number + 1
            assert payload["segmentsAdded"] == 1
            assert payload["segmentsRemoved"] == (1 if number else 0)

    async def _read(self, number: int) -> None:
        data = await self._send(READ, {"id": str(1 + number % 100)})
        if data:
            assert {"slug": "STABLE"} in data["user"]["segments"]

    async def _run_import(self, number: int) -> None:
        slug = f"LIST_{number}"
        await self._mutate(CREATE_SEGMENT, {"slug": slug})
        lines = "".join(f"{user_id}\n" for user_id in range(1, LISTED + 1)).encode()
        source = {"upload": {"sizeBytes": len(lines)}}
        created = await self._mutate(CREATE_IMPORT, {"input": {"slug": slug, "source": source}})
        if created:
            assert (await put(created["upload"], lines)).status_code == 200
            import_id = created["import"]["id"]
            await self._mutate(START_IMPORT, {"input": {"id": import_id}})
            await self._wait("import", READ_IMPORT, {"id": import_id}, status="COMPLETED")

    async def _run_rollout(self, number: int) -> None:
        percent = PERCENTS[number % 2]
        plan = {"percent": percent}
        if await self._mutate(SET_ROLLOUT, {"slug": "ROLLED", "rollout": plan}):
            self._percent = percent
            await self._wait("rollout", READ_ROLLOUT, {"slug": "ROLLED"}, status="COMPLETED")

    async def _run_report(self, number: int) -> None:
        fields = {
            "year": 2024,
            "month": 1 + number % 12,
            "userId": str(1 + number),
            "waitSeconds": 2,
        }
        created = await self._mutate(CREATE_REPORT, {"input": fields})
        if created:
            report_id = created["report"]["id"]
            await self._wait("report", READ_REPORT, {"id": report_id}, status="READY")

    async def _wait(self, kind: str, query: str, variables: Mapping[str, Any], status: str) -> None:
        async def is_finished() -> bool:
            await asyncio.sleep(PAUSE_SECONDS)
            data = await self._send(query, variables)
            if data is None:
                return False
            record = data["segment"]["rollout"] if kind == "rollout" else data[kind]
            assert record["failure"] is None, record
            return bool(record["status"] == status)

        await until(is_finished, seconds=JOB_SECONDS)
        self.finished_jobs[kind] = self.finished_jobs.get(kind, 0) + 1

    async def check(self, sql: Sql) -> None:
        """Compare the database with what the responses have promised."""
        assert await history_inconsistencies(sql) == {}
        recorded = await sql.fetch(
            """
            SELECT user_id, count(*) FILTER (WHERE operation = 'JOINED') AS joins,
                count(*) FILTER (WHERE operation = 'LEFT') AS leaves
            FROM history WHERE user_id >= $1 AND segment_id IN (1, 2) GROUP BY user_id
            """,
            FIRST_WRITER,
        )
        assert {row["user_id"]: (row["joins"], row["leaves"]) for row in recorded} == {
            user_id: (writes, writes - 1) for user_id, writes in self.writes.items()
        }
        lists = await sql.fetch(
            """
            SELECT slug, count(*), min(user_id), max(user_id) FROM memberships m
            JOIN segments s ON s.id = m.segment_id WHERE slug LIKE 'LIST%' GROUP BY slug
            """
        )
        assert len(lists) == self.finished_jobs["import"]
        assert {tuple(row)[1:] for row in lists} == {(LISTED, 1, LISTED)}
        stored = [row["id"] for row in await sql.fetch("SELECT id FROM users")]
        assert set(await members(sql, 3)) == expected_sample(3, stored, self._percent)
        reports = await sql.fetchval("SELECT count(*) FROM reports")
        assert reports == self.finished_jobs["report"]
        assert min(self.finished_jobs[kind] for kind in ("import", "rollout", "report")) > 1
