"""Measures the bytes of users, memberships and history, VACUUM, and the drop of old months.

The joins are spread evenly over 24 months. A quarter as many memberships have ended, three months
after their join. History begins 12 months ago after the drop. While months are dropped, a
connection adds and removes a membership without a pause, and its latencies are measured.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final

import asyncpg

from bench.databases import Connection, superuser_connection
from segmentql.adapters import migrations
from segmentql.local import LocalServers, local_servers, with_database

DATABASE: Final = "bench_sizing"
MONTHS: Final = 24
KEPT_MONTHS: Final = 12
SEGMENTS: Final = 100
ENDED_SHARE: Final = 4
"""One membership has ended for so many active ones."""

_FILL = (
    """
SELECT make_history_partitions(
    (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => 24))::date, 26)
""",
    """
INSERT INTO segments (slug, created_at, updated_at)
SELECT 'segment-' || id, now() - interval '3 years', now() - interval '3 years'
FROM generate_series(1, {segments}) AS id
""",
    """
INSERT INTO users (id, created_at)
SELECT id, now() - interval '3 years' FROM generate_series(1, {users}) AS id
""",
    """
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor, api_key_id)
SELECT user_id, segment_id, at, at, 'MANUAL', 'backend', 'k_0123456789abcdef'
FROM (
    SELECT 1 + n % {users} AS user_id, 1 + (n / {users} * 7 + n) % {segments} AS segment_id,
        now() - interval '720 days' * (n::float8 / {memberships}) AS at
    FROM generate_series(0, {memberships} - 1) AS n
) AS joined
""",
    """
INSERT INTO history (user_id, at, segment_id, operation, membership_id, cause, actor, api_key_id,
    recorded_at)
SELECT 1 + n % {users}, entry.at, 1 + (n * 13) % {segments}, entry.operation, 1000000000 + n,
    'MANUAL', 'backend', 'k_0123456789abcdef', entry.at
FROM generate_series(0, {memberships} / {ended_share} - 1) AS n
CROSS JOIN LATERAL (
    SELECT now() - interval '720 days' * (n::float8 / ({memberships} / {ended_share})) AS at
) AS joined
CROSS JOIN LATERAL (VALUES
    (joined.at, 'JOINED'::operation),
    (least(joined.at + interval '91 days', now()), 'LEFT')
) AS entry (at, operation)
ON CONFLICT DO NOTHING
""",
    "UPDATE member_count_rollup SET position = (SELECT max(position) FROM history)",
)

_SIZES = """
SELECT sum(pg_table_size(oid))::bigint AS table_bytes,
    sum(pg_indexes_size(oid))::bigint AS index_bytes
FROM pg_class WHERE relkind = 'r' AND (relname = $1 OR $1 = 'history' AND relname ~ '^history_')
"""

_EARLIEST = """
SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => $1))
    AT TIME ZONE 'UTC'
"""

_MONTHS_TO_DROP = """
SELECT month FROM pg_inherits JOIN pg_class ON oid = inhrelid
CROSS JOIN to_date(substring(relname FROM '^history_([0-9]{4}_[0-9]{2})$'), 'YYYY_MM') AS month
WHERE inhparent = 'history'::regclass AND month < $1::timestamptz::date ORDER BY 1
"""


@dataclass(frozen=True)
class Size:
    """The size of a table with its indexes."""

    table: str
    rows: int
    table_bytes: int
    index_bytes: int

    def __str__(self) -> str:
        return (
            f"| `{self.table}` | {self.rows:,} | {self.table_bytes / self.rows:.0f}"
            f" | {self.index_bytes / self.rows:.0f}"
            f" | {(self.table_bytes + self.index_bytes) / self.rows:.0f} |"
        )


async def measure(users: int, memberships: int, data_dir: Path) -> AsyncIterator[str]:
    """Yield the lines of the result."""
    async with local_servers(data_dir) as servers, _database(servers) as connection:
        for statement in _FILL:
            await connection.execute(
                statement.format(
                    users=users,
                    memberships=memberships,
                    segments=SEGMENTS,
                    ended_share=ENDED_SHARE,
                )
            )
        await connection.execute("VACUUM ANALYZE")
        yield "| table | rows | bytes of the row | bytes of its indexes | together |"
        for table in ("users", "memberships", "history"):
            yield str(await _size(connection, table))
        yield await _vacuum(connection)
        async for line in _drop(servers, connection):
            yield line
        yield str(await _size(connection, "history"))


@asynccontextmanager
async def _database(servers: LocalServers) -> AsyncIterator[Connection]:
    async with superuser_connection(servers, "postgres") as server:
        await server.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        await server.execute(f"CREATE DATABASE {DATABASE} OWNER segmentql_owner TEMPLATE template0")
        await asyncio.to_thread(migrations.upgrade, servers.settings(DATABASE))
        async with superuser_connection(servers, DATABASE) as connection:
            yield connection
        await server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


async def _size(connection: Connection, table: str) -> Size:
    row = await connection.fetchrow(_SIZES, table)
    assert row is not None  # noqa: S101 - sums always have a row
    rows = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return Size(table, rows, row["table_bytes"], row["index_bytes"])


async def _vacuum(connection: Connection) -> str:
    """Set the end of a tenth of the memberships, and vacuum the table."""
    updated = await connection.execute(
        "UPDATE memberships SET expires_at = now() + interval '1 year', updated_at = now()"
        " WHERE id % 10 = 0"
    )
    started = time.monotonic()
    await connection.execute("VACUUM memberships")
    return f"VACUUM of memberships after {updated}: {time.monotonic() - started:.2f} s"


async def _drop(servers: LocalServers, connection: Connection) -> AsyncIterator[str]:
    writer = await asyncpg.connect(with_database(servers.service_url, DATABASE))
    service = await asyncpg.connect(with_database(servers.service_url, DATABASE))
    yield f"writes without a drop: {await _latencies(writer, seconds=5)}"
    earliest: datetime = await connection.fetchval(_EARLIEST, KEPT_MONTHS)
    months = [row[0] for row in await connection.fetch(_MONTHS_TO_DROP, earliest)]
    stop = asyncio.Event()
    writing = asyncio.create_task(_latencies(writer, stop=stop))
    started = time.monotonic()
    await service.fetchval("SELECT prune_history($1)", earliest)
    seconds = [await _drop_month(service, month) for month in months]
    stop.set()
    yield f"writes while {len(months)} months are dropped: {await writing}"
    yield (
        f"months dropped in {time.monotonic() - started:.1f} s, the slowest in {max(seconds):.2f} s"
    )
    await writer.close()
    await service.close()


async def _drop_month(service: Connection, month: date) -> float:
    started = time.monotonic()
    await service.fetchval("SELECT drop_history_month($1)", month)
    return time.monotonic() - started


async def _latencies(
    writer: Connection, *, seconds: float = 3600, stop: asyncio.Event | None = None
) -> str:
    """Add and remove a membership until the end; return the quantiles of the latencies."""
    found = []
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at and not (stop and stop.is_set()):
        started = time.monotonic()
        await writer.execute(
            "INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)"
            " SELECT 1, 2, at, at, 'MANUAL' FROM clock_timestamp() AS at"
        )
        found.append(time.monotonic() - started)
        await writer.execute("DELETE FROM memberships WHERE user_id = 1 AND segment_id = 2")
    found.sort()
    p50, p99, longest = (1000 * found[int(share * (len(found) - 1))] for share in (0.5, 0.99, 1))
    return f"{len(found)} writes, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms"
