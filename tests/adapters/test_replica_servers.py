"""With a real standby: reads leave a replica that is away or lags, and return to it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.doctor import Finding, Verdict, examine
from segmentql.local import LocalServers
from segmentql.local.postgres import DATABASE
from segmentql.settings import Settings
from tests.conftest import until
from tests.history.clusters import migrated_cluster
from tests.replication import standby_of, suspended_server, with_replica

pytestmark = pytest.mark.slow  # it starts two servers and waits for checks, one per second

MAX_LAG_SECONDS = 2


@pytest.fixture(scope="module")
async def pair(servers: LocalServers) -> AsyncIterator[tuple[LocalServers, LocalServers]]:
    """Run a primary and its asynchronous standby."""
    with tempfile.TemporaryDirectory(prefix="segmentql-replica-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with (
            migrated_cluster(servers, folder / "primary", {"fsync": "off"}) as primary,
            standby_of(primary, folder / "standby", {"fsync": "off"}) as standby,
        ):
            yield primary, standby


@pytest.fixture
async def database(pair: tuple[LocalServers, LocalServers]) -> AsyncIterator[Database]:
    primary, standby = pair
    settings = with_replica(primary.settings(DATABASE), standby).model_copy(
        update={"replica_max_lag_seconds": MAX_LAG_SECONDS}
    )
    opened = Database(settings, name="tests", publish=lambda messages: None)
    await opened.start_replica_checks()
    yield opened
    await opened.dispose()


async def examined(settings: Settings) -> dict[str, Finding]:
    return {
        finding.check: finding
        async for finding in examine(settings)
        if finding.check.startswith("replica")
    }


async def test_doctor_examines_the_standby(
    servers: LocalServers, pair: tuple[LocalServers, LocalServers]
) -> None:
    primary, standby = pair
    settings = with_replica(primary.settings(DATABASE), standby).model_copy(
        update={"replica_max_lag_seconds": 1}
    )
    findings = await examined(settings)
    assert {finding.verdict for finding in findings.values()} == {Verdict.OK}
    assert list(findings) == ["replica", "replica's role", "replica's migrations"]
    replica_sql = await asyncpg.connect(standby.superuser_url)
    sql = await asyncpg.connect(primary.superuser_url)
    await replica_sql.execute("SELECT pg_wal_replay_pause()")
    await sql.execute("CREATE TABLE lag (a int); DROP TABLE lag")
    lagging = (await examined(settings))["replica's role"]
    await replica_sql.execute("SELECT pg_wal_replay_resume()")
    assert lagging.verdict is Verdict.WARNING
    assert "bytes of WAL behind after 1 s" in lagging.observation
    other = settings.model_copy(update={"database_url": servers.settings("postgres").database_url})
    assert (await examined(other))["replica's role"].verdict is Verdict.FAILED
    sql.terminate()
    replica_sql.terminate()


@pytest.mark.parametrize(
    ("oldest_compatible", "observation", "remedy"),
    [
        ("0020", "which is newer than this version", "update SegmentQL soon"),
        ("9999", "does not know", "fix what `migrations` above reports"),
    ],
)
async def test_doctor_warns_if_the_standby_has_a_newer_schema(
    pair: tuple[LocalServers, LocalServers], oldest_compatible: str, observation: str, remedy: str
) -> None:
    primary, standby = pair
    settings = with_replica(primary.settings(DATABASE), standby)
    sql = await asyncpg.connect(primary.superuser_url)
    read = "SELECT version_num, oldest_revision FROM alembic_version, schema_compatibility"
    before = await sql.fetchrow(read)
    assert before is not None

    async def store(revision: str, oldest_revision: str) -> None:
        await sql.execute(
            f"""
            BEGIN;
            UPDATE alembic_version SET version_num = '{revision}';
            UPDATE schema_compatibility SET oldest_revision = '{oldest_revision}';
            COMMIT;
            """
        )

    async def is_reported() -> bool:  # after the standby has replayed it
        finding = (await examined(settings))["replica's migrations"]
        return (
            finding.verdict is Verdict.WARNING
            and observation in finding.observation
            and remedy in finding.remedy
        )

    await store("9999", oldest_compatible)
    try:
        await until(is_reported)
    finally:
        await store(*before)
        await sql.close()


async def reads_standby(database: Database) -> bool:
    return await database.read_one(_is_standby, primary=False)


async def _is_standby(session: ReadSession) -> bool:
    return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))


async def reads_primary(database: Database) -> bool:
    return not await reads_standby(database)


def fallbacks(reason: str) -> float:
    return REGISTRY.get_sample_value("segmentql_replica_fallbacks_total", {"reason": reason}) or 0


async def test_reads_leave_a_stopped_replica_and_return(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    _, standby = pair
    assert await reads_standby(database)
    before = fallbacks("unreachable")
    with capture_logs() as logs:
        await standby.postgres.kill()
        # Each read succeeds, also before the first check finds the replica away.
        assert [await reads_primary(database) for _ in range(20)] == [True] * 20
        await until(lambda: _is_fallback(database))
        assert REGISTRY.get_sample_value("segmentql_replica_fallback") == 1
        await standby.postgres.start()
        await until(lambda: reads_standby(database))
    assert fallbacks("unreachable") == before + 1
    assert REGISTRY.get_sample_value("segmentql_replica_fallback") == 0
    events = [line["event"] for line in logs if line["event"].startswith("replica_")]
    assert events == ["replica_not_used", "replica_used_again"]


async def _is_fallback(database: Database) -> bool:
    return not database.is_replica_usable


async def start_slow_read(
    database: Database, reached: list[bool], *, seconds: int, table: str = "users"
) -> asyncio.Task[bool]:
    """Start a read that takes long on the standby; return it when it has reached the standby.

    Args:
        database: The database with the standby.
        reached: Gets, for each attempt of the read, whether its server is the standby.
        seconds: How long the read takes on the standby.
        table: A table that the read locks.
    """

    async def work(session: ReadSession) -> bool:
        is_standby = await _is_standby(session)
        reached.append(is_standby)
        pause = seconds if is_standby else 0
        await session.execute(text(f"SELECT pg_sleep({pause}), (SELECT count(*) FROM {table})"))
        return is_standby

    async def has_reached() -> bool:
        return bool(reached)

    read = asyncio.create_task(database.read_one(work, primary=False))
    await until(has_reached)
    return read


async def test_read_in_flight_on_a_replica_that_dies_is_retried_at_the_primary(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    _, standby = pair
    reached: list[bool] = []
    read = await start_slow_read(database, reached, seconds=60)
    await standby.postgres.kill()
    assert await read is False
    assert reached == [True, False]
    await standby.postgres.start()
    await until(lambda: reads_standby(database))


async def test_read_in_flight_on_a_replica_that_hangs_is_retried_at_the_primary(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    """The server's processes are suspended, as after a failure of its network."""
    _, standby = pair
    reached: list[bool] = []
    read = await start_slow_read(database, reached, seconds=8)
    with suspended_server(standby):
        assert await read is False
        assert await reads_primary(database)
    await until(lambda: reads_standby(database))


async def test_reads_leave_a_lagging_replica_and_return(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    primary, standby = pair
    replica_sql = await asyncpg.connect(standby.superuser_url)
    sql = await asyncpg.connect(primary.superuser_url)
    before = fallbacks("lag")
    await replica_sql.execute("SELECT pg_wal_replay_pause()")
    try:
        await sql.execute("INSERT INTO users (id, created_at) VALUES (1, now())")
        await until(lambda: reads_primary(database))
        assert fallbacks("lag") == before + 1
        lag = REGISTRY.get_sample_value("segmentql_replica_lag_seconds")
        assert lag is not None
        assert lag > MAX_LAG_SECONDS
    finally:
        await replica_sql.execute("SELECT pg_wal_replay_resume()")
    await until(lambda: reads_standby(database))
    sql.terminate()
    replica_sql.terminate()


async def test_reads_stay_at_the_replica_while_the_primary_is_away(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    primary, _ = pair
    await primary.postgres.kill()
    try:
        for _ in range(3):
            assert await reads_standby(database)
            await asyncio.sleep(1)  # the next check
    finally:
        await primary.postgres.start()


async def test_read_cancelled_by_the_replay_is_retried_at_the_primary(
    pair: tuple[LocalServers, LocalServers], database: Database
) -> None:
    primary, standby = pair
    replica_sql = await asyncpg.connect(standby.superuser_url)
    sql = await asyncpg.connect(primary.superuser_url)
    await replica_sql.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await replica_sql.execute("SELECT pg_reload_conf()")
    await sql.execute("CREATE TABLE conflict AS SELECT 1 AS one")
    await sql.execute("GRANT SELECT ON conflict TO PUBLIC")
    reached: list[bool] = []

    async def is_replayed() -> bool:
        return await replica_sql.fetchval("SELECT to_regclass('conflict') IS NOT NULL") is True

    await until(is_replayed)
    read = await start_slow_read(database, reached, seconds=8, table="conflict")
    await sql.execute("LOCK TABLE conflict; ALTER TABLE conflict ADD two int")
    assert await read is False
    assert reached == [True, False]
    await replica_sql.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
    await replica_sql.execute("SELECT pg_reload_conf()")
    await sql.execute("DROP TABLE conflict")
    sql.terminate()
    replica_sql.terminate()
