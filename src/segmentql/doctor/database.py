"""Checks of PostgreSQL, with the same engines and sessions as the service."""

import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from segmentql.adapters.connections import (
    USE_POOLER,
    describe_error,
    plain_engine,
    pooler_advice,
)
from segmentql.adapters.database import Database
from segmentql.adapters.role_settings import role_settings
from segmentql.adapters.sessions import WriteSession
from segmentql.database_url import display_address
from segmentql.doctor.findings import Finding, Verdict, clock_finding
from segmentql.doctor.migrations import migrations_finding
from segmentql.doctor.replica import examine_replica
from segmentql.errors import SegmentQLError
from segmentql.settings import Settings

MIN_POSTGRESQL_VERSION: Final = 180000
"""PostgreSQL 18 added `RETURNING old.*`."""

MAX_LEASE_AGE_SECONDS: Final = 10
"""If the scheduler's lease expired longer ago, no scheduler is running."""

_DATABASE = text("""
SELECT current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS shown_version,
    EXISTS (SELECT FROM pg_class WHERE relname = 'memberships'
        AND pg_get_userbyid(relowner) = current_user) AS owns_tables,
    (SELECT json_object_agg(lower(name), setting) FROM pg_settings
        WHERE lower(name) IN ('idle_in_transaction_session_timeout', 'jit', 'lock_timeout',
            'statement_timeout', 'timezone')) AS session_settings,
    extract(epoch FROM clock_timestamp())::float AS clock
""")
_INSERT = text("""
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

_WAITING_COMMITS = text("""
SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND wait_event = 'SyncRep'
    AND query_start < clock_timestamp() - interval '1 second'
""")

_ADMIN_KEYS = text("SELECT count(*) FROM api_keys WHERE role = 'ADMIN' AND revoked_at IS NULL")


async def examine_databases(settings: Settings) -> AsyncIterator[Finding]:
    """Check the database, its owner's URL and its replica."""
    database = Database(settings, name="segmentql doctor", publish=lambda messages: None)
    try:
        findings = [finding async for finding in _database(settings, database)]
        for finding in findings:
            yield finding
        if settings.migration_database_url:
            yield await _owner_connects(settings.migration_database_url)
        if settings.database_read_url:
            async for finding in examine_replica(settings, settings.database_read_url, database):
                yield finding
    finally:
        await database.dispose()


async def _database(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    findings: list[Finding] = []
    failure = await _failure(
        "database", settings.database_url, _read_all(settings, database, findings)
    )
    yield failure or Finding("database", Verdict.OK, display_address(settings.database_url))
    for finding in findings:
        yield finding
    if failure is None and findings[-1].check != "migrations":  # the tables exist
        yield await _failure(
            "a transaction", settings.database_url, _write_and_roll_back(database)
        ) or Finding("a transaction", Verdict.OK, "run and rolled back")


async def _read_all(settings: Settings, database: Database, findings: list[Finding]) -> None:
    async with database.read() as session:
        before = time.time()
        row = (await session.execute(_DATABASE)).one()
        skew = row.clock - (before + time.time()) / 2
        findings.append(_version(row))
        findings.append(clock_finding("database's clock", skew))
        findings.append(_owner(row.owns_tables))
        findings.extend(_pooler(settings, row))
        findings.extend(_commits((await session.execute(_WAITING_COMMITS)).scalar_one()))
        migrations = await migrations_finding("migrations", await session.connection())
        findings.append(migrations)
        if migrations.verdict is not Verdict.FAILED:
            findings.extend(
                [
                    _scheduler((await session.execute(_SCHEDULER)).scalar()),
                    _partitions((await session.execute(_PARTITIONS)).one()),
                    _due((await session.execute(_DUE)).scalar_one()),
                    _keys(settings, (await session.execute(_ADMIN_KEYS)).scalar_one()),
                ]
            )


class _RollBack(Exception):
    """Rolls back the transaction of a check."""


async def _write_and_roll_back(database: Database) -> None:
    async def work(session: WriteSession) -> None:
        await session.execute(_INSERT)
        raise _RollBack

    with contextlib.suppress(_RollBack):
        await database.transaction(work)


async def _owner_connects(url: str) -> Finding:
    async def connect() -> None:
        engine = plain_engine(url, name="segmentql doctor")
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        finally:
            await engine.dispose()

    check = "owner's database"
    return await _failure(check, url, connect()) or Finding(check, Verdict.OK, display_address(url))


async def _failure(check: str, url: str, work: Coroutine[Any, Any, None]) -> Finding | None:
    """Run a check; return a finding if it failed."""
    try:
        await work
    except (DBAPIError, OSError, TimeoutError, SegmentQLError) as error:
        return Finding(
            check,
            Verdict.FAILED,
            f"{display_address(url)}: {describe_error(error)}",
            pooler_advice(error) or "check that the server runs there and accepts this role",
        )
    return None


def _version(row: Any) -> Finding:
    if row.version >= MIN_POSTGRESQL_VERSION:
        return Finding("PostgreSQL", Verdict.OK, row.shown_version)
    return Finding("PostgreSQL", Verdict.FAILED, row.shown_version, "upgrade to 18 or later")


def _owner(owns_tables: bool) -> Finding:  # noqa: FBT001 - a column of the row
    if not owns_tables:
        return Finding("service's role", Verdict.OK, "owns no tables")
    return Finding(
        "service's role",
        Verdict.WARNING,
        "owns the tables, so it could change history",
        "set SEGMENTQL_MIGRATION_DATABASE_URL to the URL of another role, see docs/database.md",
    )


def _pooler(settings: Settings, row: Any) -> Iterator[Finding]:
    """Compare the settings outside a transaction with those of the service."""
    shown = row.session_settings
    differences = [
        f"{name} is {shown[name]} instead of {value}"
        for name, value in role_settings(settings).items()
        if shown[name] != value
    ]
    if settings.database_pooler == "none":
        if differences:
            yield Finding(
                "pooler",
                Verdict.FAILED,
                f"a pooler drops startup parameters: {', '.join(differences)}",
                USE_POOLER,
            )
    elif differences:
        yield Finding(
            "pooler",
            Verdict.WARNING,
            f"transaction; outside a transaction, {', '.join(differences)}",
            "run `segmentql migrate`, then RECONNECT in PgBouncer's admin console",
        )
    else:
        yield Finding("pooler", Verdict.OK, "transaction; the role has the service's settings")


def _commits(waiting: int) -> Iterator[Finding]:
    if waiting:
        yield Finding(
            "commits",
            Verdict.FAILED,
            f"{waiting} session{' waits' if waiting == 1 else 's wait'} for a synchronous standby",
            "start a standby, or run ALTER SYSTEM SET synchronous_standby_names = '' and reload"
            " PostgreSQL; changes may be lost in a failover then",
        )


def _scheduler(late_seconds: float | None) -> Finding:
    if late_seconds is not None and late_seconds < MAX_LEASE_AGE_SECONDS:
        return Finding("worker", Verdict.OK, "a scheduler holds the lease")
    return Finding(
        "worker",
        Verdict.WARNING,
        "no scheduler is running",
        "run `segmentql worker`. Until then, no leave is recorded. Reads are correct",
    )


def _partitions(row: Any) -> Finding:
    if row.next_month and not row.default_used:
        return Finding("history's partitions", Verdict.OK, "created ahead of time")
    observation = (
        "the default partition contains rows"
        if row.next_month
        else "next month's partition is missing"
    )
    return Finding(
        "history's partitions",
        Verdict.WARNING,
        observation,
        "run a worker, or SELECT make_history_partitions(...), see docs/database.md",
    )


def _due(memberships: int) -> Finding:
    if memberships == 0:
        return Finding("expiry", Verdict.OK, "no unrecorded leaves")
    return Finding(
        "expiry",
        Verdict.WARNING,
        f"{memberships} leaves are unrecorded for over a minute",
        "start another `segmentql worker` and check its log",
    )


def _keys(settings: Settings, admin_keys: int) -> Finding:
    observation = f"{settings.auth}; {admin_keys} with the role ADMIN"
    if settings.auth == "off" or admin_keys:
        return Finding("API keys", Verdict.OK, observation)
    return Finding(
        "API keys",
        Verdict.WARNING,
        observation,
        "run `segmentql keys create --role ADMIN --name NAME`",
    )
