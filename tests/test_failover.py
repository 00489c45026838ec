"""A failover to the standby loses no acknowledged change, and the service recovers by itself."""

import asyncio
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import WriteSession
from segmentql.database_url import check_database_url
from segmentql.errors import SegmentQLError
from segmentql.local import LocalServers, with_database
from segmentql.local.postgres import DATABASE
from segmentql.settings import Settings
from tests.conftest import Api, Sql, environment, serving, until
from tests.history.clusters import migrated_cluster, run_client
from tests.replication import (
    REMOTE_APPLY,
    commit_synchronously,
    standby_of,
    suspended_server,
)

pytestmark = pytest.mark.slow  # each test starts and stops two servers

CREATE = """
mutation($id: ID!) {
  updateUserSegments(input: {userId: $id, add: ["A"]}) { segmentsAdded }
}
"""
FEED = """
query($after: String) {
  changes(after: $after, start: EARLIEST, first: 1000, waitSeconds: 10) {
    events { ... on MembershipEvent { entry { userId } } } cursor caughtUp
  }
}
"""
CLIENTS = 4


class Pair(NamedTuple):
    primary: LocalServers
    standby: LocalServers
    settings: Settings
    """The settings of a service with both hosts."""

    async def promote(self) -> None:
        folder = self.standby.postgres.program.working_folder
        await run_client("pg_ctl", "promote", f"--pgdata={folder}")


@pytest.fixture
async def pair(servers: LocalServers) -> AsyncIterator[Pair]:
    """Run a primary and its synchronous standby."""
    with tempfile.TemporaryDirectory(prefix="segmentql-failover-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with (
            migrated_cluster(servers, folder / "primary", REMOTE_APPLY) as primary,
            standby_of(primary, folder / "standby", {"fsync": "off"}) as standby,
        ):
            await commit_synchronously(primary)
            urls = [make_url(each.service_url) for each in (primary, standby)]
            hosts = ",".join(f"{url.host}:{url.port}" for url in urls)
            url = (
                f"postgresql://{urls[0].username}:{urls[0].password}@{hosts}/{DATABASE}"
                "?target_session_attrs=read-write"
            )
            settings = primary.settings(DATABASE).model_copy(
                update={"database_url": check_database_url(url)}
            )
            yield Pair(primary, standby, settings)


class Load:
    """Clients that change users with idempotency keys, and retry until each is acknowledged."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ids = itertools.count(1)
        self.acknowledged: list[int] = []
        self.retries = 0
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._run())
            yield
            self._stopping = True

    async def _run(self) -> None:
        while not self._stopping:
            user_id = next(self._ids)
            while not await self._change(user_id):
                self.retries += 1
                await asyncio.sleep(0.1)
            self.acknowledged.append(user_id)

    async def _change(self, user_id: int) -> bool:
        response = await self._api.http.post(
            "/graphql",
            json={"query": CREATE, "variables": {"id": str(user_id)}},
            headers={"Idempotency-Key": f"change-{user_id}"},
        )
        body: Any = response.json()
        if "errors" not in body:
            return True
        codes = [error["extensions"]["code"] for error in body["errors"]]
        assert codes == ["UNAVAILABLE"], body
        return False

    async def has_failed(self) -> bool:
        return self.retries > 0

    async def has_acknowledged(self, count: int) -> bool:
        return len(self.acknowledged) >= count


async def test_failover_under_load_loses_no_acknowledged_change(pair: Pair) -> None:
    async with serving(pair.settings) as api, worker(pair.settings):
        await api('mutation { createSegment(input: {slug: "A"}) { segment { id } } }')
        load = Load(api)
        async with load.running():
            await until(lambda: load.has_acknowledged(50))
            consumer = Consumer(api)
            await consumer.read()
            assert consumer.users
            await pair.primary.postgres.kill()
            await until(load.has_failed)
            count = len(load.acknowledged)
            await pair.promote()
            await until(lambda: load.has_acknowledged(count + 50))
        sql = await asyncpg.connect(with_database(pair.standby.superuser_url, DATABASE))
        joins = [row[0] for row in await sql.fetch("SELECT user_id FROM history ORDER BY user_id")]
        assert joins == sorted(load.acknowledged)  # each change has exactly one effect
        # A consumer continues after the cursor that it had before the failover.
        await until(consumer.read)
        assert sorted(consumer.users) == joins
        # The worker records a leave at the new primary.
        await api(
            'mutation { updateUserSegments(input: {userId: 100000, add: ["A"], ttlSeconds: 1})'
            " { user { id } } }"
        )
        await until(lambda: has_left(sql, 100_000))
        sql.terminate()


class Consumer:
    """A consumer of the change feed, which stores its cursor."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._cursor: str | None = None
        self.users: list[int] = []

    async def read(self) -> bool:
        """Read a batch; return whether it was the last one."""
        batch = (await self._api(FEED, after=self._cursor))["changes"]
        self._cursor = batch["cursor"]
        self.users += [int(event["entry"]["userId"]) for event in batch["events"]]
        return bool(batch["caughtUp"])


async def has_left(sql: Sql, user_id: int) -> bool:
    return bool(
        await sql.fetchval(
            "SELECT count(*) FROM history WHERE user_id = $1 AND operation = 'LEFT'", user_id
        )
    )


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "segmentql", "worker"),
        env=environment(settings),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def store(database: Database, user_id: int) -> int:
    """Store a user; return the process id of the session."""

    async def work(session: WriteSession) -> int:
        await session.execute(text(f"INSERT INTO users (id, created_at) VALUES ({user_id}, now())"))
        return int(await session.scalar(text("SELECT pg_backend_pid()")))

    return await database.transaction(work)


async def test_service_leaves_an_old_primary_that_became_read_only(pair: Pair) -> None:
    """Error 25006 closes the pooled connections, and the change is retried at the new primary."""
    database = Database(pair.settings, name="tests", publish=lambda messages: None)
    try:
        await store(database, 1)
        await pair.promote()
        sql = await asyncpg.connect(pair.primary.superuser_url)
        await sql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await sql.execute("SELECT pg_reload_conf()")
        sql.terminate()
        await until(lambda: _stores(database, 2))
        new = await asyncpg.connect(with_database(pair.standby.superuser_url, DATABASE))
        assert [row["id"] for row in await new.fetch("SELECT id FROM users ORDER BY id")] == [1, 2]
        new.terminate()
    finally:
        await database.dispose()


async def _stores(database: Database, user_id: int) -> bool:
    try:
        await store(database, user_id)
    except SegmentQLError:
        return False
    return True


async def test_service_leaves_a_primary_that_hangs(pair: Pair) -> None:
    """The first host of the URL accepts connections and does not respond."""
    settings = pair.settings.model_copy(update={"statement_timeout_seconds": 1})
    database = Database(settings, name="tests", publish=lambda messages: None)
    try:
        await store(database, 1)
        with suspended_server(pair.primary):
            await pair.promote()
            await until(lambda: _stores(database, 2))
            assert await database.ping()
    finally:
        await database.dispose()
