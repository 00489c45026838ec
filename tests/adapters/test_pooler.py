"""The service works behind PgBouncer in transaction mode, and doctor checks its settings."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.role_settings import store_role_settings
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.doctor import Finding, Verdict, examine
from segmentql.errors import TimedOut, Unavailable
from segmentql.local import LocalServers, with_database
from segmentql.reports.csv_export import CsvExport
from segmentql.reports.records import ReportScope
from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, environment, make_database, serving
from tests.operations import CREATE_USER, UPDATE_USER_SEGMENTS, make_segments
from tests.pooler import SERVER_CONNECTIONS, behind_pooler, pgbouncer

# Each test starts a PgBouncer and creates a database, which takes about a second.
pytestmark = pytest.mark.slow

CLIENTS = 5 * SERVER_CONNECTIONS


@pytest.fixture
async def own_settings(servers: LocalServers, template: str) -> AsyncIterator[Settings]:
    """Yield the settings of a service on a migrated database of its own."""
    name = f"pooled_{uuid.uuid4().hex}"
    await make_database(servers, name, template=template)
    yield servers.settings(name)
    connection = await asyncpg.connect(with_database(servers.superuser_url, "postgres"))
    await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await connection.close()


def with_clients(settings: Settings) -> Settings:
    return settings.model_copy(update={"database_pool_size": CLIENTS})


def opened(settings: Settings) -> Database:
    return Database(settings, name="tests", publish=lambda _: None)


async def migrate(settings: Settings, folder: Path, **changes: str) -> str:
    """Run `segmentql migrate` and return its standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "migrate"),
        cwd=folder,
        env=environment(settings, **changes),
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()


async def doctor_findings(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine(settings)}


async def ping(session: ReadSession | WriteSession) -> int:
    return int((await session.execute(text("SELECT 42"))).scalar_one())


async def test_doctor_and_service_fail_without_the_setting(own_settings: Settings) -> None:
    async with pgbouncer(own_settings.database_url) as url:
        settings = behind_pooler(own_settings, url, "none")
        finding = (await doctor_findings(settings))["database"]
        database = opened(settings)
        with pytest.raises(Unavailable):
            await database.read_one(ping)
        assert not await database.ping()
        await database.dispose()
    assert finding.verdict is Verdict.FAILED
    assert "a pooler rejected the startup parameter" in finding.observation
    assert finding.remedy == "set SEGMENTQL_DATABASE_POOLER=transaction"


async def test_doctor_finds_a_pooler_that_ignores_startup_parameters(
    own_settings: Settings,
) -> None:
    ignored = (
        "client_min_messages,jit,lock_timeout,statement_timeout,idle_in_transaction_session_timeout"
    )
    async with pgbouncer(own_settings.database_url, ignore_startup_parameters=ignored) as url:
        finding = (await doctor_findings(behind_pooler(own_settings, url, "none")))["pooler"]
    assert finding.verdict is Verdict.FAILED
    assert finding.observation == (
        "a pooler drops startup parameters: jit is on instead of off,"
        " statement_timeout is 0 instead of 10000, lock_timeout is 0 instead of 5000,"
        " idle_in_transaction_session_timeout is 0 instead of 15000"
    )
    assert finding.remedy == "set SEGMENTQL_DATABASE_POOLER=transaction"


async def test_migrate_stores_the_settings_of_reads_once(
    own_settings: Settings, servers: LocalServers, tmp_path: Path
) -> None:
    name = own_settings.database_url.rpartition("/")[2]
    superuser = await asyncpg.connect(with_database(servers.superuser_url, name))
    await superuser.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Tokyo'")
    async with pgbouncer(own_settings.database_url) as url:
        settings = behind_pooler(own_settings, url)
        findings = await doctor_findings(settings)
        assert findings["database"].verdict is Verdict.OK
        assert findings["a transaction"].verdict is Verdict.OK
        assert findings["pooler"].verdict is Verdict.WARNING
        assert findings["pooler"].observation == (
            "transaction; outside a transaction, timezone is Asia/Tokyo instead of UTC,"
            " jit is on instead of off, statement_timeout is 0 instead of 10000,"
            " lock_timeout is 0 instead of 5000,"
            " idle_in_transaction_session_timeout is 0 instead of 15000"
        )
        assert findings["pooler"].remedy == (
            "run `segmentql migrate`, then RECONNECT in PgBouncer's admin console"
        )

        output = await migrate(settings, tmp_path)
        assert output.count("ALTER ROLE segmentql_service IN DATABASE") == 5
        assert f"{name} SET statement_timeout = '10000'" in output
        assert "run RECONNECT" in output
        assert "ALTER ROLE" not in await migrate(settings, tmp_path)
        output = await migrate(settings, tmp_path, SEGMENTQL_STATEMENT_TIMEOUT_SECONDS="7")
        assert output.count("ALTER ROLE") == 1
        assert "SET statement_timeout = '7000'" in output

    # A new pooler has new connections. PgBouncer also keeps the time zone of the first one.
    async with pgbouncer(own_settings.database_url) as url:
        settings = behind_pooler(own_settings, url)
        changed = settings.model_copy(update={"statement_timeout_seconds": 7})
        assert (await doctor_findings(changed))["pooler"] == Finding(
            "pooler", Verdict.OK, "transaction; the role has the service's settings"
        )
        assert (await doctor_findings(settings))["pooler"].observation == (
            "transaction; outside a transaction, statement_timeout is 7000 instead of 10000"
        )
    await superuser.close()


async def test_read_is_cancelled_by_the_server_after_migrate(own_settings: Settings) -> None:
    limited = own_settings.model_copy(update={"statement_timeout_seconds": 0.1})
    await store_role_settings(limited)
    async with pgbouncer(own_settings.database_url) as url:
        database = opened(behind_pooler(limited, url))

        async def sleep(session: ReadSession) -> None:
            await session.execute(text("SELECT pg_sleep(60)"))

        with pytest.raises(TimedOut):
            await database.read_one(sleep)
        assert await database.read_one(ping) == 42
        await database.dispose()


async def test_service_works_with_many_clients_on_few_server_connections(
    own_settings: Settings,
) -> None:
    def joins() -> float:
        return float(metrics.JOINS.labels("MANUAL")._value.get())

    async with (
        pgbouncer(own_settings.database_url) as url,
        serving(with_clients(behind_pooler(own_settings, url))) as api,
    ):
        await make_segments(api, "a", "b")
        before = joins()

        async def client(first: int) -> None:
            for number in range(first, first + 5):
                await api(CREATE_USER, input={"id": str(number)})
                change = {"userId": str(number), "add": ["a", "b"]}
                data = await api(UPDATE_USER_SEGMENTS, input=change)
                assert data["updateUserSegments"]["errors"] == []
                data = await api(
                    "query($id: ID!) { user(id: $id) { segments { slug } } }", id=number
                )
                assert data["user"]["segments"] == [{"slug": "a"}, {"slug": "b"}]

        await asyncio.gather(*(client(100 * number + 1) for number in range(CLIENTS)))
        assert joins() - before == 2 * 5 * CLIENTS
        assert (await api.http.get("/readyz")).json()["database"] == "ok"


async def test_transactions_have_the_services_time_limits(own_settings: Settings) -> None:
    async with pgbouncer(own_settings.database_url) as url:
        database = opened(
            behind_pooler(own_settings, url).model_copy(update={"statement_timeout_seconds": 0.1})
        )

        async def sleep(session: WriteSession) -> None:
            await session.execute(text("SELECT pg_sleep(60)"))

        async def limit(session: ReadSession | WriteSession) -> str:
            return str((await session.execute(text("SHOW statement_timeout"))).scalar_one())

        with pytest.raises(TimedOut):
            await database.transaction(sleep)
        assert await database.transaction(limit) == "100ms"
        assert await database.read_one(limit) == "0"  # no setting remains on the server connection
        async with database.long_read(seconds=30) as session:
            assert await limit(session) == "30s"
            csv = CsvExport(session, ReportScope(2024, 3, None))
            assert [chunk async for chunk in csv.chunks()] == [
                b"user_id,segment_slug,operation,executed_at\n"
            ]
        await database.dispose()


async def test_slow_read_is_cancelled_by_the_client(
    own_settings: Settings, servers: LocalServers
) -> None:
    name = own_settings.database_url.rpartition("/")[2]
    async with pgbouncer(own_settings.database_url) as url:
        database = opened(
            behind_pooler(own_settings, url).model_copy(update={"statement_timeout_seconds": 0.1})
        )

        async def sleep(session: ReadSession) -> None:
            await session.execute(text("SELECT pg_sleep(60)"))

        with pytest.raises(Unavailable):
            await database.read_one(sleep)
        superuser = await asyncpg.connect(with_database(servers.superuser_url, name))
        active = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        )
        async with asyncio.timeout(PATIENCE_SECONDS):  # the statement sleeps longer
            while await superuser.fetchval(active):
                await asyncio.sleep(0.02)
        await superuser.close()
        assert await database.read_one(ping) == 42
        await database.dispose()
