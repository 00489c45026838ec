"""Checks of the replica: it is a standby of the database, has its tables and does not lag."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import text

from segmentql.adapters.connections import describe_error
from segmentql.adapters.database import Database
from segmentql.database_url import display_address
from segmentql.doctor.findings import Finding, Verdict
from segmentql.doctor.migrations import migrations_finding
from segmentql.errors import SegmentQLError, Unavailable
from segmentql.settings import Settings

POLL_SECONDS: Final = 0.1

_SERVER: Final = text("""
SELECT pg_is_in_recovery() AS is_standby,
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier
""")
_FLUSHED: Final = text("SELECT CAST(pg_current_wal_flush_lsn() - '0/0' AS bigint)")
_REPLAYED: Final = text("SELECT CAST(pg_last_wal_replay_lsn() - '0/0' AS bigint)")


async def examine_replica(
    settings: Settings, url: str, database: Database
) -> AsyncIterator[Finding]:
    """Check the replica.

    Args:
        settings: The settings.
        url: The URL of the replica.
        database: The database with this replica.
    """
    address = display_address(url)
    try:
        async with database.read(primary=False) as session:
            replica: Any = (await session.execute(_SERVER)).one()
            migrations = await migrations_finding(
                "replica's migrations", await session.connection()
            )
    except (SegmentQLError, OSError, TimeoutError) as error:
        yield Finding(
            "replica",
            Verdict.FAILED,
            f"{address}: {describe_error(error)}",
            "check that the server runs there and accepts this role. Until then, reads go to the"
            " primary",
        )
        return
    yield Finding("replica", Verdict.OK, address)
    if not replica.is_standby:
        yield Finding(
            "replica's role",
            Verdict.WARNING,
            "not a standby, so its lag cannot be measured",
            "set SEGMENTQL_DATABASE_READ_URL to a standby, or SEGMENTQL_REPLICA_MAX_LAG_SECONDS=0"
            " to use it unconditionally, see docs/operations/replicas.md",
        )
        return
    try:
        yield await _standby(settings, database, replica.system_identifier)
    except Unavailable:
        yield Finding("replica's role", Verdict.OK, "a standby; the primary does not respond")
        return
    if migrations.verdict is Verdict.FAILED:  # The start checks only the primary's schema.
        migrations = replace(
            migrations,
            verdict=Verdict.WARNING,
            remedy="fix what `migrations` above reports; if it is ok, wait until the replica has"
            " replayed the migrations",
        )
    yield migrations


async def _standby(settings: Settings, database: Database, system_identifier: int) -> Finding:
    async with database.read() as session:
        primary: Any = (await session.execute(_SERVER)).one()
        is_same = primary.system_identifier == system_identifier
        flushed = await session.scalar(_FLUSHED) if is_same and not primary.is_standby else None
    if not is_same:
        return Finding(
            "replica's role",
            Verdict.FAILED,
            "a standby of another server than SEGMENTQL_DATABASE_URL",
            "set SEGMENTQL_DATABASE_READ_URL to a standby of that server",
        )
    if flushed is None:
        return Finding(
            "replica's role",
            Verdict.FAILED,
            "SEGMENTQL_DATABASE_URL is a standby as well",
            "promote one of them, and add target_session_attrs=read-write to the URL",
        )
    seconds = settings.replica_max_lag_seconds or POLL_SECONDS
    for _ in range(max(1, int(seconds / POLL_SECONDS))):
        async with database.read(primary=False) as session:
            behind = flushed - await session.scalar(_REPLAYED)
        if behind <= 0:
            return Finding("replica's role", Verdict.OK, "a standby that has replayed all changes")
        await asyncio.sleep(POLL_SECONDS)
    return Finding(
        "replica's role",
        Verdict.WARNING,
        f"a standby that is {behind} bytes of WAL behind after {seconds:g} s",
        "check pg_stat_replication on the primary and long queries on the replica",
    )
