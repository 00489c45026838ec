"""`segmentql doctor`: says what is wrong and what to do, and never a password."""

import asyncio

import pytest
from sqlalchemy.engine import make_url

from segmentql.doctor import Finding, Verdict, examine
from segmentql.local import LocalServers
from segmentql.settings import Settings
from tests.conftest import RunWorker, Sql, make_database, until


async def examined(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding async for finding in examine(settings)}


async def test_finds_nothing_wrong_with_a_running_service(
    settings: Settings, sql: Sql, run_worker: RunWorker
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
        "ends",
        "owner's database",
        "Redis",
        "Redis' clock",
        "Redis' memory",
    ]


async def test_without_a_worker_it_warns_of_ends_that_wait(settings: Settings, sql: Sql) -> None:
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
    assert findings["ends"].saw == "1 are over a minute old and not recorded"


async def test_a_database_without_tables_wants_migrations(servers: LocalServers) -> None:
    await make_database(servers, "bare")
    findings = await examined(servers.settings("bare"))
    assert findings["migrations"].verdict is Verdict.FAILED
    assert findings["migrations"].do == "run `segmentql migrate`"


@pytest.mark.parametrize("what", ["database", "redis"])
async def test_a_wrong_password_is_told_without_it(settings: Settings, sql: Sql, what: str) -> None:
    url = make_url(getattr(settings, f"{what}_url")).set(password="not-the-password")
    changed = settings.model_copy(update={f"{what}_url": url.render_as_string(hide_password=False)})
    findings = await examined(changed)
    named = findings["Redis" if what == "redis" else "database"]
    assert named.verdict is Verdict.FAILED
    assert named.do
    told = " ".join(f"{f.saw} {f.do}" for f in findings.values())
    assert "not-the-password" not in told
    secret = make_url(settings.database_url).password
    assert isinstance(secret, str)
    assert secret not in told


async def test_a_service_that_owns_its_tables_is_warned(settings: Settings, sql: Sql) -> None:
    changed = settings.model_copy(update={"database_url": settings.migration_database_url})
    assert (await examined(changed))["service's role"].verdict is Verdict.WARNING


async def test_redis_that_is_away_fails_and_the_database_is_still_examined(
    settings: Settings, sql: Sql
) -> None:
    changed = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    findings = await asyncio.wait_for(examined(changed), timeout=30)
    assert findings["Redis"].verdict is Verdict.FAILED
    assert findings["migrations"].verdict is Verdict.OK
