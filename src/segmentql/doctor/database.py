"""Checks of PostgreSQL, through the engines and sessions that the service uses."""

import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import (
    USE_POOLER,
    connection_fault,
    plain_engine,
    pooler_advice,
    statement_timeout_milliseconds,
)
from segmentql.adapters.database import Database, WriteSession
from segmentql.adapters.revisions import check_revision, current_revision, newest_revision
from segmentql.database_url import shown_address
from segmentql.doctor.findings import Finding, Verdict, clock_finding
from segmentql.errors import SchemaMismatch, SegmentQLError
from segmentql.settings import Settings

OLDEST_POSTGRESQL: Final = 180000
"""`RETURNING old.*` came with 18."""

FRESH_SCHEDULER_SECONDS: Final = 10

_DATABASE = text("""
SELECT current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS shown_version,
    EXISTS (SELECT FROM pg_class WHERE relname = 'memberships'
        AND pg_get_userbyid(relowner) = current_user) AS owns_tables,
    quote_ident(current_user) AS role,
    (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout,
    extract(epoch FROM clock_timestamp())::float AS clock
""")
_CHANGE = text("""
INSERT INTO leases (name, holder, expires_at) VALUES ('doctor', 'doctor', clock_timestamp())
""")
_SCHEDULER = text("""
SELECT extract(epoch FROM clock_timestamp() - expires_at)::float AS late
FROM leases WHERE name = 'scheduler'
""")
_PARTITIONS = text("""
SELECT to_regclass('public.history_' || to_char(now() AT TIME ZONE 'UTC' + interval '1 month',
    'YYYY_MM')) IS NOT NULL AS next_month,
    EXISTS (SELECT FROM history_default) AS default_used
""")
_DUE = text("SELECT count(*) FROM memberships WHERE expires_at < now() - interval '1 minute'")

_ADMIN_KEYS = text("SELECT count(*) FROM api_keys WHERE role = 'ADMIN' AND revoked_at IS NULL")


async def examine_databases(settings: Settings) -> AsyncIterator[Finding]:
    """Check the database, its owner's URL and its replica, with the service's own connections."""
    database = Database(settings, name="segmentql doctor", publish=lambda messages: None)
    try:
        findings = [finding async for finding in _database(settings, database)]
        for finding in findings:
            yield finding
        if settings.migration_database_url:
            yield await _owner_connects(settings.migration_database_url)
        if settings.database_read_url:
            yield await _replica_reads(settings.database_read_url, database)
    finally:
        await database.dispose()


async def _database(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    findings: list[Finding] = []
    problem = await _problem(
        "database", settings.database_url, _read_all(settings, database, findings)
    )
    yield problem or Finding("database", Verdict.OK, shown_address(settings.database_url))
    for finding in findings:
        yield finding
    if problem is None and findings[-1].check != "migrations":  # there are tables to write
        yield await _problem(
            "a change", settings.database_url, _write_and_roll_back(database)
        ) or Finding("a change", Verdict.OK, "made and rolled back")


async def _read_all(settings: Settings, database: Database, findings: list[Finding]) -> None:
    async with database.read() as session:
        before = time.time()
        row = (await session.execute(_DATABASE)).one()
        skew = row.clock - (before + time.time()) / 2
        findings.append(_version(row))
        findings.append(clock_finding("database's clock", skew))
        findings.append(_owner(row.owns_tables))
        findings.extend(_pooler(settings, row))
        revision = await current_revision(await session.connection())
        findings.append(_migrations(revision))
        if revision == newest_revision():
            findings.extend(
                [
                    _scheduler((await session.execute(_SCHEDULER)).scalar()),
                    _partitions((await session.execute(_PARTITIONS)).one()),
                    _due((await session.execute(_DUE)).scalar_one()),
                    _keys(settings, (await session.execute(_ADMIN_KEYS)).scalar_one()),
                ]
            )


class _RolledBack(Exception):
    """The end of a change that is not to be kept."""


async def _write_and_roll_back(database: Database) -> None:
    async def work(session: WriteSession) -> None:
        await session.execute(_CHANGE)
        raise _RolledBack

    with contextlib.suppress(_RolledBack):
        await database.transaction(work)


async def _owner_connects(url: str) -> Finding:
    async def look() -> None:
        engine = plain_engine(url, name="segmentql doctor")
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    check = "owner's database"
    return await _problem(check, url, look()) or Finding(check, Verdict.OK, shown_address(url))


async def _replica_reads(url: str, database: Database) -> Finding:
    async def look() -> None:
        async with database.read(primary=False) as session:
            await session.execute(text("SELECT 1"))

    return await _problem("replica", url, look()) or Finding(
        "replica", Verdict.OK, shown_address(url)
    )


async def _problem(check: str, url: str, work: Coroutine[Any, Any, None]) -> Finding | None:
    """Do what the service does, and say why it failed."""
    try:
        await work
    except (DBAPIError, OSError, TimeoutError, SegmentQLError) as error:
        return Finding(
            check,
            Verdict.FAILED,
            f"{shown_address(url)}: {connection_fault(error)}",
            pooler_advice(error) or "check that the server runs there and accepts this role",
        )
    return None


def _version(row: Any) -> Finding:
    if row.version >= OLDEST_POSTGRESQL:
        return Finding("PostgreSQL", Verdict.OK, row.shown_version)
    return Finding("PostgreSQL", Verdict.FAILED, row.shown_version, "upgrade to 18 or later")


def _owner(owns_tables: bool) -> Finding:  # noqa: FBT001 - a column, as it was read
    if not owns_tables:
        return Finding("service's role", Verdict.OK, "owns nothing")
    return Finding(
        "service's role",
        Verdict.WARNING,
        "owns the tables, so nothing keeps it from writing history",
        "set SEGMENTQL_MIGRATION_DATABASE_URL to another role's address; see docs/database.md",
    )


def _pooler(settings: Settings, row: Any) -> Iterator[Finding]:
    wanted = statement_timeout_milliseconds(settings)
    if settings.database_pooler == "none":
        if row.statement_timeout != wanted:
            yield Finding(
                "pooler",
                Verdict.FAILED,
                "a pooler drops startup parameters: statement_timeout is"
                f" {row.statement_timeout} ms instead of {wanted} ms",
                USE_POOLER,
            )
    elif row.statement_timeout == 0:
        seconds = settings.statement_timeout_seconds
        yield Finding(
            "pooler",
            Verdict.WARNING,
            "transaction; PostgreSQL limits changes, but no reads",
            f"run ALTER ROLE {row.role} SET statement_timeout = '{seconds:g}s'",
        )
    else:
        yield Finding("pooler", Verdict.OK, "transaction; PostgreSQL limits changes and reads")


def _migrations(revision: str | None) -> Finding:
    try:
        check_revision(revision)
    except SchemaMismatch as error:
        return Finding("migrations", Verdict.FAILED, f"at {error.state}", error.remedy)
    return Finding("migrations", Verdict.OK, f"at {revision}, the newest")


def _scheduler(late_seconds: float | None) -> Finding:
    if late_seconds is not None and late_seconds < FRESH_SCHEDULER_SECONDS:
        return Finding("worker", Verdict.OK, "its scheduler holds the lease")
    return Finding(
        "worker",
        Verdict.WARNING,
        "no scheduler is at work",
        "run `segmentql worker`: reads stay true, but ends are not recorded meanwhile",
    )


def _partitions(row: Any) -> Finding:
    if row.next_month and not row.default_used:
        return Finding("history's partitions", Verdict.OK, "made ahead")
    observation = "next month's is missing" if not row.next_month else "the DEFAULT one holds rows"
    return Finding(
        "history's partitions",
        Verdict.WARNING,
        observation,
        "run a worker, or SELECT make_history_partitions(...): see docs/database.md",
    )


def _due(memberships: int) -> Finding:
    if memberships == 0:
        return Finding("expiry", Verdict.OK, "none is waiting to be recorded")
    return Finding(
        "expiry",
        Verdict.WARNING,
        f"{memberships} are over a minute old and not recorded",
        "start another `segmentql worker`, and look at its log",
    )


def _keys(settings: Settings, admin_keys: int) -> Finding:
    observation = f"{settings.auth}; {admin_keys} of role ADMIN"
    if settings.auth == "off" or admin_keys:
        return Finding("API keys", Verdict.OK, observation)
    return Finding(
        "API keys",
        Verdict.WARNING,
        observation,
        "run `segmentql keys create --role ADMIN --name NAME`",
    )
