"""`segmentql doctor` reports problems and fixes, and never a password."""

import asyncio
import secrets
import tempfile
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from segmentql.adapters.storage import Storage
from segmentql.doctor import Finding, Verdict, examine
from segmentql.local import LocalServers, with_database
from segmentql.local.postgres import DATABASE, SUPERUSER
from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, make_database, until
from tests.history.clusters import migrated_cluster
from tests.replication import REMOTE_APPLY


async def examined(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding async for finding in examine(settings)}


async def test_running_service_passes_all_checks(
    settings: Settings, sql: Sql, storage: Storage, run_worker: RunWorker
) -> None:
    async with run_worker():

        async def well() -> bool:
            return {f.verdict for f in (await examined(settings)).values()} == {Verdict.OK}

        await until(well)
        findings = await examined(settings)
    assert list(findings) == [
        "database",
        "PostgreSQL",
        "database's clock",
        "service's role",
        "migrations",
        "worker",
        "history's partitions",
        "expiry",
        "API keys",
        "a transaction",
        "owner's database",
        "Redis",
        "Redis' clock",
        "Redis' memory",
        "object store",
        "object store's clock",
    ]


async def test_missing_worker_is_a_warning_with_unrecorded_ends(
    settings: Settings, sql: Sql
) -> None:
    await sql.execute(
        """
        INSERT INTO users VALUES (1, now());
        INSERT INTO segments (slug, created_at, updated_at) VALUES ('A', now(), now());
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
        VALUES (1, 1, now() - interval '1 hour', now(), now() - interval '10 minutes', 'MANUAL')
        """
    )
    findings = await examined(settings)
    assert findings["worker"].verdict is Verdict.WARNING
    assert findings["expiry"].observation == "1 leaves are unrecorded for over a minute"


async def test_database_without_tables_needs_migrations(servers: LocalServers) -> None:
    await make_database(servers, "bare")
    findings = await examined(servers.settings("bare"))
    assert findings["migrations"].verdict is Verdict.FAILED
    assert findings["migrations"].remedy == "run `segmentql migrate`"


@pytest.mark.parametrize("check", ["database", "redis"])
async def test_wrong_password_is_reported_without_the_password(
    settings: Settings, sql: Sql, check: str
) -> None:
    url = make_url(getattr(settings, f"{check}_url")).set(password="not-the-password")
    changed = settings.model_copy(
        update={f"{check}_url": url.render_as_string(hide_password=False)}
    )
    findings = await examined(changed)
    with_database = findings["Redis" if check == "redis" else "database"]
    assert with_database.verdict is Verdict.FAILED
    assert with_database.remedy
    text = " ".join(f"{f.observation} {f.remedy}" for f in findings.values())
    assert "not-the-password" not in text
    secret = make_url(settings.database_url).password
    assert isinstance(secret, str)
    assert secret not in text


async def test_redis_password_problem_is_reported_with_a_fix(settings: Settings, sql: Sql) -> None:
    redis = make_url(settings.redis_url)
    without = f"redis://{redis.host}:{redis.port}/0"
    wrong_url = redis.set(password="wrong").render_as_string(hide_password=False)
    for url, saw in ((without, "it needs a password"), (wrong_url, "it rejects the password")):
        finding = (await examined(settings.model_copy(update={"redis_url": url})))["Redis"]
        assert finding.verdict is Verdict.FAILED
        assert finding.observation.endswith(f": {saw}")
        assert finding.remedy == (
            "set SEGMENTQL_REDIS_URL to redis://:PASSWORD@HOST:PORT/0 with the password of Redis"
        )


async def test_replica_that_is_away_is_reported(settings: Settings, sql: Sql) -> None:
    unreachable = make_url(settings.database_url).set(port=1).render_as_string(hide_password=False)
    changed = settings.model_copy(update={"database_read_url": unreachable})
    assert (await examined(changed))["replica"].verdict is Verdict.FAILED


async def test_replica_that_is_no_standby_is_a_warning(settings: Settings, sql: Sql) -> None:
    changed = settings.model_copy(update={"database_read_url": settings.database_url})
    findings = await examined(changed)
    assert findings["replica"].verdict is Verdict.OK
    assert findings["replica's role"].verdict is Verdict.WARNING


async def test_service_that_owns_its_tables_is_a_warning(settings: Settings, sql: Sql) -> None:
    changed = settings.model_copy(update={"database_url": settings.migration_database_url})
    assert (await examined(changed))["service's role"].verdict is Verdict.WARNING


async def test_unreachable_redis_does_not_stop_the_database_checks(
    settings: Settings, sql: Sql
) -> None:
    changed = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    findings = await asyncio.wait_for(examined(changed), timeout=30)
    assert findings["Redis"].verdict is Verdict.FAILED
    assert findings["migrations"].verdict is Verdict.OK


UNUSABLE = {
    "s3_bucket": ("not-made", "bucket not-made", "run `segmentql bucket`"),
    "s3_endpoint_url": ("http://127.0.0.1:1", "the object store cannot be reached", "check"),
    "s3_access_key": ("nobody", "the object store does not know the access key", "check"),
    "s3_secret_key": ("wrong", "the object store rejects the secret key", "check"),
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_unusable_store_is_reported_with_a_fix(
    settings: Settings, storage: Storage, name: str
) -> None:
    value, saw, do = UNUSABLE[name]
    findings = await examined(settings.model_copy(update={name: value}))
    store = findings["object store"]
    assert store.verdict is Verdict.FAILED
    assert saw in store.observation
    assert store.remedy.startswith(do)
    text = " ".join(f"{f.observation} {f.remedy}" for f in findings.values())
    assert settings.store.access_key not in text
    assert settings.store.secret_key not in text


async def test_wrong_clock_of_the_store_is_a_warning(settings: Settings) -> None:
    """A store whose clock is years behind."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2020 12:00:00 GMT\r\n"
            b"Content-Length: 9\r\nConnection: close\r\n\r\n<Result/>"
        )
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        findings = await examined(settings.model_copy(update={"s3_endpoint_url": url}))
    assert findings["object store"].verdict is Verdict.OK
    clock = findings["object store's clock"]
    assert clock.verdict is Verdict.WARNING
    assert clock.observation.endswith(" s behind")
    assert clock.remedy.startswith("run NTP on both machines. Links expire")


async def set_synchronous_standby(servers: LocalServers, name: str) -> None:
    sql = await asyncpg.connect(with_database(servers.superuser_url, SUPERUSER))
    await sql.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await sql.execute("SELECT pg_reload_conf()")
    await sql.close()


async def waits_for_standby(servers: LocalServers, pid: int) -> bool:
    sql = await asyncpg.connect(with_database(servers.superuser_url, SUPERUSER))
    try:
        event = await sql.fetchval("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", pid)
    finally:
        await sql.close()
    return bool(event == "SyncRep")


@pytest.mark.slow  # it starts a PostgreSQL server
async def test_commits_that_wait_for_a_missing_standby_are_reported(servers: LocalServers) -> None:
    with tempfile.TemporaryDirectory(prefix="segmentql-doctor-") as name:
        Path(name).chmod(0o755)
        async with migrated_cluster(servers, Path(name) / "primary", REMOTE_APPLY) as primary:
            settings = primary.settings(DATABASE)
            first, second, blocked = [
                await asyncpg.connect(with_database(primary.service_url, DATABASE))
                for _ in range(3)
            ]

            async def commit(sql: asyncpg.Connection) -> None:
                await sql.execute(
                    "INSERT INTO leases VALUES ($1, 'test', now())", secrets.token_hex()
                )

            async def waiting_commit(sql: asyncpg.Connection) -> asyncio.Task[None]:
                """Commit until one waits: a reload takes effect a moment after `pg_reload_conf`."""
                async with asyncio.timeout(60):
                    while True:
                        task = asyncio.create_task(commit(sql))
                        while not task.done():
                            if await waits_for_standby(primary, sql.get_server_pid()):
                                return task
                        await task

            async def observation() -> str | None:
                findings = await asyncio.wait_for(examined(settings), timeout=30)
                assert findings["a transaction"].verdict is Verdict.OK
                return findings["commits"].observation if "commits" in findings else None

            async def sees(expected: str | None) -> None:
                async def seen() -> bool:
                    return await observation() == expected

                await until(seen)

            # A commit does not wait, and a statement that waits for something else is not counted.
            await commit(first)
            sleeping = asyncio.create_task(blocked.execute("SELECT pg_sleep(600)"))
            await asyncio.sleep(1.5)  # longer than the second after which a session is counted
            assert await observation() is None

            await set_synchronous_standby(primary, "missing")
            commits = [await waiting_commit(first)]
            await sees("1 session waits for a synchronous standby")
            commits.append(await waiting_commit(second))
            await sees("2 sessions wait for a synchronous standby")
            found = {f.check: f async for f in examine(settings)}
            assert found["commits"].verdict is Verdict.FAILED
            assert "SET synchronous_standby_names = ''" in found["commits"].remedy
            assert list(found).index("commits") < list(found).index("worker")
            assert not any(task.done() for task in commits)

            await set_synchronous_standby(primary, "")  # the remedy
            await asyncio.wait_for(asyncio.gather(*commits), timeout=30)
            assert await observation() is None
            sleeping.cancel()
            for sql in (first, second, blocked):
                sql.terminate()
