"""Shared fixtures: connections to the database, and the application.

`server_fixtures` has the fixtures of the servers, which all tests may use too.
Tests commit for real. A test that uses `sql`, `database` or `api` starts with empty tables.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import asyncpg
import httpx
import hypothesis
import pytest
from redis import Redis
from sqlalchemy import Engine, event
from starlette.applications import Starlette

from segmentql.adapters.database import Database
from segmentql.adapters.jobs import Message
from segmentql.app import create_app
from segmentql.local import ChildProcess, LocalServers, with_database
from segmentql.settings import Settings, child_environment
from segmentql.tables import (
    Base,
    DroppedHistoryRow,
    IdAllocatorRow,
    MemberCountRollupRow,
    SchemaCompatibilityRow,
)

pytest_plugins = ("tests.server_fixtures",)

READS_REPLICA = os.environ.get("SEGMENTQL_TEST_REPLICA") == "1"
"""Whether the service reads a synchronous standby, as `make test-replica` does."""

needs_reads_of_the_primary = pytest.mark.skipif(
    READS_REPLICA, reason="a lock or an outage of the primary does not affect reads of a replica"
)

PATIENCE_SECONDS = 30
"""The maximum time that a test waits for an expected event, even on a slow machine."""

# The examples are the same in each run; `--hypothesis-profile=long` generates new ones.
hypothesis.settings.register_profile("short", derandomize=True, max_examples=30, deadline=None)
hypothesis.settings.register_profile("long", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("short")

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start a worker process as slow."""
    for item in items:
        if "run_worker" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")


@pytest.fixture
async def sql(servers: LocalServers, settings: Settings) -> AsyncIterator[Sql]:
    """Connect as a superuser to the service's database, with empty tables."""
    connection = await asyncpg.connect(with_database(servers.superuser_url, "run"))
    await empty_tables(connection)
    with Redis.from_url(servers.redis_url) as redis:
        redis.flushall()
    yield connection
    await connection.close()


@pytest.fixture
async def sent() -> list[Message]:
    """The messages that `database` published after its commits."""
    return []


@pytest.fixture
async def database(settings: Settings, sql: Sql, sent: list[Message]) -> AsyncIterator[Database]:
    """Open the database under the service's role; jobs are collected in `sent` instead of sent."""
    opened = Database(settings, name="tests", publish=sent.extend)
    yield opened
    await opened.dispose()


class Api:
    """An HTTP client of the application."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.http = client

    async def __call__(self, query: str, **variables: Any) -> Any:
        """Return the data of an operation that must succeed."""
        body = await self.body(query, **variables)
        assert "errors" not in body, body["errors"]
        return body["data"]

    async def body(self, query: str, **variables: Any) -> Any:
        """Return the whole response body without the cost."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        return without_cost(response.json())

    async def error(self, query: str, **variables: Any) -> Any:
        """Return the only GraphQL error of an operation that must fail."""
        body = await self.body(query, **variables)
        (error,) = body["errors"]
        return error


def without_cost(body: Any) -> Any:
    """Return a response body without the cost, which only executed operations have."""
    if "extensions" in body:
        assert list(body["extensions"]) == ["cost"]
        assert sorted(body.pop("extensions")["cost"]) == ["allowed", "estimated"]
    return body


@asynccontextmanager
async def serving(settings: Settings, *, app: Starlette | None = None) -> AsyncIterator[Api]:
    """Run the application with its lifespan and middleware in this event loop."""
    app = app or create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        yield Api(client)


@pytest.fixture(scope="session")
async def served(settings: Settings) -> AsyncIterator[Api]:
    """Run the application for the whole test run; only its document cache is kept between tests."""
    async with serving(settings) as client_api:
        yield client_api


@pytest.fixture
async def api(served: Api, sql: Sql) -> Api:
    """Return the application, with empty tables and no worker."""
    return served


@pytest.fixture(scope="session")
async def auth_settings(settings: Settings) -> Settings:
    """Return the settings of a service that requires API keys."""
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture(scope="session")
async def session_auth_api(auth_settings: Settings) -> AsyncIterator[Api]:
    async with serving(auth_settings) as client_api:
        yield client_api


@pytest.fixture
async def auth_api(session_auth_api: Api, sql: Sql) -> Api:
    """Return the application that requires API keys, with empty tables."""
    return session_auth_api


RunWorker: TypeAlias = Callable[..., AbstractAsyncContextManager[asyncio.subprocess.Process]]


@contextmanager
def recorded_statements(*, with_key_cache: bool = False) -> Iterator[list[str]]:
    """Collect every SQL statement that SQLAlchemy sends in the block.

    The application of `session_auth_api` writes the uses of API keys and checks the keys in the
    background. These statements are left out, except `with_key_cache`, and so are the checks of a
    replica.
    """
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        is_of_key_cache = "SET last_used_at" in statement or "AS known (public_id)" in statement
        is_replica_check = "_lsn() - '0/0'" in statement
        if not is_replica_check and (with_key_cache or not is_of_key_cache):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def until(
    condition: Callable[[], Awaitable[object]], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Poll a condition until it is true, and fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@contextmanager
def suspended(server: ChildProcess) -> Iterator[None]:
    """Suspend a server's process: it accepts connections and does not respond."""
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def environment(settings: Settings, **changes: str) -> Mapping[str, str]:
    """Return a child process' environment with the values of `settings`."""
    return child_environment(
        {
            "SEGMENTQL_DATABASE_URL": settings.database_url,
            "SEGMENTQL_MIGRATION_DATABASE_URL": settings.owner_database_url,
            "SEGMENTQL_DATABASE_POOLER": settings.database_pooler,
            "SEGMENTQL_REDIS_URL": settings.redis_url,
            "SEGMENTQL_S3_ENDPOINT_URL": settings.store.endpoint_url,
            "SEGMENTQL_S3_PUBLIC_ENDPOINT_URL": settings.store.public_endpoint_url,
            "SEGMENTQL_S3_REGION": settings.s3_region,
            "SEGMENTQL_S3_BUCKET": settings.s3_bucket,
            "SEGMENTQL_S3_ACCESS_KEY": settings.store.access_key,
            "SEGMENTQL_S3_SECRET_KEY": settings.store.secret_key,
            "SEGMENTQL_AUTH": settings.auth,
            "SEGMENTQL_FIRST_KEY": settings.first_key or "",
            "SEGMENTQL_METRICS_TOKEN": settings.metrics_token or "",
            "SEGMENTQL_LOG_FORMAT": "json",
            **changes,
        }
    )


async def make_database(servers: LocalServers, name: str, *, template: str = "template1") -> None:
    """Create a database of the owner role from `template`."""
    connection = await asyncpg.connect(servers.superuser_url.replace("/segmentql", "/postgres"))
    await connection.execute(
        f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER segmentql_owner'
    )
    await connection.close()
    inside = await asyncpg.connect(with_database(servers.superuser_url, name))
    await inside.execute("ALTER SCHEMA public OWNER TO segmentql_owner")
    await inside.close()


ONE_ROW_TABLES = {
    table.__tablename__
    for table in (IdAllocatorRow, MemberCountRollupRow, DroppedHistoryRow, SchemaCompatibilityRow)
}
TABLES = tuple(sorted(set(Base.metadata.tables) - ONE_ROW_TABLES))
"""Every table, except those whose only row stays."""

DELETE_LIMIT_BYTES = 2 * 1024 * 1024
"""The size up to which deleting the rows is faster than truncating the tables."""

WRITTEN = f"""
SELECT ARRAY(
           SELECT name FROM (VALUES {
    ", ".join(f"('{table}', EXISTS (SELECT FROM {table}))" for table in TABLES)
}) AS tables (name, is_written) WHERE is_written
       ) AS tables,
       ARRAY(
           SELECT format('setval(%L, %s, false)', sequencename, start_value) FROM pg_sequences
           WHERE schemaname = 'public' AND last_value IS NOT NULL
       ) AS sequences,
       (
           SELECT sum(pg_relation_size(oid))::bigint FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
       ) AS bytes
"""


async def empty_tables(sql: Sql) -> None:
    """Empty the written tables and restart the used sequences.

    Triggers, which reject this, do not fire.
    """
    written = await sql.fetchrow(WRITTEN)
    assert written is not None
    if written["bytes"] > DELETE_LIMIT_BYTES:
        statements = [f"TRUNCATE {', '.join(TABLES)}"]
    else:
        statements = [f"DELETE FROM {table}" for table in written["tables"]]
    if written["sequences"]:
        statements.append(f"SELECT {', '.join(written['sequences'])}")
    await sql.execute(
        f"""
        SET session_replication_role = replica;
        {";".join(statements)};
        UPDATE id_allocator SET user_id = 0 WHERE user_id <> 0;
        UPDATE member_count_rollup SET position = 0 WHERE position <> 0;
        UPDATE dropped_history SET earliest_at = '-infinity', dropped_position = 0
        WHERE earliest_at > '-infinity';
        SET session_replication_role = DEFAULT;
        """
    )
