"""Checks what a running service needs, and says what to do about what is wrong."""

import enum
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from segmentql.adapters.broker import REDIS_SECONDS
from segmentql.adapters.database import CONNECT_SECONDS
from segmentql.adapters.migrations import newest_revision
from segmentql.adapters.s3 import Limits
from segmentql.adapters.storage import Storage
from segmentql.errors import BucketMissing, StoreFailed
from segmentql.settings import Settings

OLDEST_POSTGRESQL: Final = 180000
"""`RETURNING old.*` came with 18."""

OLDEST_REDIS: Final = (6, 0)
MOST_SKEW_SECONDS: Final = 2.0
FRESH_SCHEDULER_SECONDS: Final = 10
MOST_STORE_SKEW_SECONDS: Final = 60
"""A store refuses what is signed by a clock a quarter of an hour off; links run out by its own."""

STORE_LIMITS: Final = Limits(read_seconds=5, attempts=1)


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check saw, and what to do where it is not `OK`. Never a password."""

    what: str
    verdict: Verdict
    saw: str
    do: str = ""


_DATABASE = text("""
SELECT current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS shown_version,
    EXISTS (SELECT FROM pg_class WHERE relname = 'memberships'
        AND pg_get_userbyid(relowner) = current_user) AS owns_tables,
    to_regclass('public.alembic_version') IS NOT NULL AS migrated,
    extract(epoch FROM clock_timestamp())::float AS clock
""")
_REVISION = text("SELECT version_num FROM alembic_version")
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


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run every check, each as far as those before it allow."""
    database = [finding async for finding in _database(settings)]
    for finding in database:
        yield finding
    if settings.migration_database_url:
        yield await _connects("owner's database", settings.migration_database_url)
    if settings.database_read_url:
        yield await _connects("replica", settings.database_read_url)
    async for finding in _redis(settings.redis_url):
        yield finding
    async for finding in _store(settings):
        yield finding


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    what, url = "database", settings.database_url
    findings: list[Finding] = []

    async def look(connection: AsyncConnection) -> None:
        before = time.time()
        row = (await connection.execute(_DATABASE)).one()
        skew = row.clock - (before + time.time()) / 2
        findings.append(_version(row))
        findings.append(_clock("database's clock", skew))
        findings.append(_owner(row.owns_tables))
        revision = (await connection.execute(_REVISION)).scalar() if row.migrated else None
        findings.append(_migrations(revision))
        if revision == newest_revision():
            findings.extend(
                [
                    _scheduler((await connection.execute(_SCHEDULER)).scalar()),
                    _partitions((await connection.execute(_PARTITIONS)).one()),
                    _due((await connection.execute(_DUE)).scalar_one()),
                    _keys(settings, (await connection.execute(_ADMIN_KEYS)).scalar_one()),
                ]
            )

    problem = await _with_connection(url, look)
    yield problem or Finding(what, Verdict.OK, _where(url))
    for finding in findings:
        yield finding


def _version(row: Any) -> Finding:
    if row.version >= OLDEST_POSTGRESQL:
        return Finding("PostgreSQL", Verdict.OK, row.shown_version)
    return Finding("PostgreSQL", Verdict.FAILED, row.shown_version, "upgrade to 18 or later")


def _clock(what: str, skew_seconds: float) -> Finding:
    saw = f"{abs(skew_seconds):.1f} s {'ahead' if skew_seconds > 0 else 'behind'}"
    if abs(skew_seconds) <= MOST_SKEW_SECONDS:
        return Finding(what, Verdict.OK, saw)
    return Finding(
        what,
        Verdict.WARNING,
        saw,
        "nothing is decided by this machine's clock, but its logs will not match: run NTP on both",
    )


def _owner(owns_tables: bool) -> Finding:  # noqa: FBT001 - a column, as it was read
    if not owns_tables:
        return Finding("service's role", Verdict.OK, "owns nothing")
    return Finding(
        "service's role",
        Verdict.WARNING,
        "owns the tables, so nothing keeps it from writing history",
        "set SEGMENTQL_MIGRATION_DATABASE_URL to another role's address; see docs/database.md",
    )


def _migrations(revision: str | None) -> Finding:
    newest = newest_revision()
    if revision == newest:
        return Finding("migrations", Verdict.OK, f"at {revision}, the newest")
    return Finding(
        "migrations", Verdict.FAILED, f"at {revision}, not {newest}", "run `segmentql migrate`"
    )


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
    saw = "next month's is missing" if not row.next_month else "the DEFAULT one holds rows"
    return Finding(
        "history's partitions",
        Verdict.WARNING,
        saw,
        "run a worker, or SELECT make_history_partitions(...): see docs/database.md",
    )


def _due(memberships: int) -> Finding:
    if memberships == 0:
        return Finding("ends", Verdict.OK, "none is waiting to be recorded")
    return Finding(
        "ends",
        Verdict.WARNING,
        f"{memberships} are over a minute old and not recorded",
        "start another `segmentql worker`, and look at its log",
    )


def _keys(settings: Settings, admin_keys: int) -> Finding:
    saw = f"{settings.auth}; {admin_keys} of role ADMIN"
    if settings.auth == "off" or admin_keys:
        return Finding("API keys", Verdict.OK, saw)
    return Finding(
        "API keys",
        Verdict.WARNING,
        saw,
        "run `segmentql keys create --role ADMIN --name NAME`",
    )


async def _connects(what: str, url: str) -> Finding:
    async def look(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT 1"))

    problem = await _with_connection(url, look)
    if problem:
        return Finding(what, problem.verdict, problem.saw, problem.do)
    return Finding(what, Verdict.OK, _where(url))


async def _with_connection(
    url: str, look: Callable[[AsyncConnection], Awaitable[None]]
) -> Finding | None:
    engine = create_async_engine(
        url, poolclass=NullPool, connect_args={"timeout": CONNECT_SECONDS}, hide_parameters=True
    )
    try:
        async with engine.connect() as connection:
            await look(connection)
    except (DBAPIError, OSError, TimeoutError) as error:
        reason = str(getattr(error, "orig", None) or error or type(error).__name__)
        return Finding(
            "database",
            Verdict.FAILED,
            f"{_where(url)}: {reason.splitlines()[0]}",
            "check that the server runs there and lets this role in",
        )
    finally:
        await engine.dispose()
    return None


async def _redis(url: str) -> AsyncIterator[Finding]:
    client = Redis.from_url(url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)
    where = _where(url)
    try:
        before = time.time()
        seconds, microseconds = await client.time()
        skew = seconds + microseconds / 1e6 - (before + time.time()) / 2
        info = await client.info("server")
        memory = await client.info("memory")
    except AuthenticationError as error:
        yield Finding("Redis", Verdict.FAILED, f"{where}: {error}", "check the URL's password")
        return
    except (RedisError, OSError) as error:
        yield Finding(
            "Redis",
            Verdict.FAILED,
            f"{where}: {error}",
            "check that it runs there; until then ends are recorded late, and nothing is lost",
        )
        return
    finally:
        await client.aclose()
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) >= OLDEST_REDIS:
        yield Finding("Redis", Verdict.OK, f"{where}, {version}")
    else:
        yield Finding("Redis", Verdict.FAILED, f"{where}, {version}", "upgrade to 6.0 or later")
    yield _clock("Redis' clock", skew)
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("Redis' memory", Verdict.OK, "nothing is evicted")
    else:
        yield Finding(
            "Redis' memory",
            Verdict.WARNING,
            f"maxmemory-policy is {policy}, so jobs may be thrown away",
            "set it to noeviction",
        )


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    storage = Storage(settings, STORE_LIMITS)
    where = f"{settings.store.endpoint_url}, bucket {settings.s3_bucket}"
    try:
        before = time.time()
        clock = await storage.check()
        skew = clock.timestamp() - (before + time.time()) / 2
    except BucketMissing:
        yield Finding("object store", Verdict.FAILED, where, "run `segmentql bucket`")
        return
    except StoreFailed as failed:
        yield Finding(
            "object store",
            Verdict.FAILED,
            f"{where}: {failed.reason}",
            "check that it runs there, and SEGMENTQL_S3_ACCESS_KEY and SEGMENTQL_S3_SECRET_KEY;"
            " until then reports fail, and nothing else does",
        )
        return
    finally:
        await storage.close()
    yield Finding("object store", Verdict.OK, where)
    yield _store_clock(skew)


def _store_clock(skew_seconds: float) -> Finding:
    finding = _clock("object store's clock", skew_seconds)
    if abs(skew_seconds) <= MOST_STORE_SKEW_SECONDS:
        return Finding(finding.what, Verdict.OK, finding.saw)
    do = "links run out too early or too late, and beyond 15 minutes none works: run NTP on both"
    return Finding(finding.what, Verdict.WARNING, finding.saw, do)


def _where(url: str) -> str:
    """An address without its password."""
    parsed = make_url(url)
    database = f"/{parsed.database}" if parsed.database else ""
    return f"{parsed.host or 'socket'}:{parsed.port or 'default port'}{database}"
