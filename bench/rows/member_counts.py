"""Measures `memberCounts` of a segment with a long history, after the roll-up."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from bench import servers
from bench.comparison import WrongResponse
from bench.databases import Connection, cloned_database, superuser_connection
from bench.http import GraphQLClient, graphql_client
from bench.plan import Benchmark
from bench.table import Row
from segmentql.adapters.database import Database
from segmentql.history.actors import roll_up_member_counts
from segmentql.settings import Settings

DAYS: Final = 360
POINTS: Final = 100
REPEATS: Final = 5
MAX_SECONDS: Final = 1

QUERY: Final = """
query($slug: String!, $from: DateTime!, $to: DateTime!, $points: Int!) {
  segment(slug: $slug) { memberCounts(from: $from, to: $to, points: $points) { at count } }
}
"""

# Two of three rows are joins, at regular intervals. Every second member leaves ten days later.
FILL: Final = """
INSERT INTO history (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
SELECT user_id, at, $1, operation, user_id, 'MANUAL', at
FROM (
    SELECT n, $3::timestamptz + n * ($4::interval / joins), 'JOINED'::operation
    FROM (SELECT $2::bigint * 2 / 3 AS joins), generate_series(1, joins) AS n
    UNION ALL
    SELECT 2 * n, $3 + 2 * n * ($4 / joins) + interval '10 days', 'LEFT'
    FROM (SELECT $2 * 2 / 3 AS joins), generate_series(1, joins / 2) AS n
) AS entry (user_id, at, operation)
ORDER BY at
"""

MEMBERS_AT: Final = """
SELECT count(*) FILTER (WHERE operation = 'JOINED') - count(*) FILTER (WHERE operation = 'LEFT')
FROM history WHERE segment_id = $1 AND at <= $2
"""


async def measure(bench: Benchmark) -> AsyncIterator[Row]:
    rows = bench.plan.member_count_rows
    bench.print_line(f"member counts of a segment with {rows:,} rows of history")
    async with cloned_database(bench.servers, bench.small) as clone:
        settings = bench.servers.settings(clone)
        async with superuser_connection(bench.servers, clone) as sql:
            (segment_id, slug), *_ = await sql.fetch("SELECT id, slug FROM segments ORDER BY id")
            since, until = await fill(sql, segment_id, rows)
            variables = {
                "slug": slug,
                "from": since.isoformat(),
                "to": until.isoformat(),
                "points": POINTS,
            }
            roll_up_seconds = await _roll_up(settings)
            async with (
                servers.run_api(bench.servers, settings, "bench-api") as api,
                graphql_client(api.port) as client,
            ):
                seconds, counts = await _fastest(client, variables)
            for at, count in list(counts.items())[:: POINTS // 4]:
                started = time.monotonic()
                expected = await sql.fetchval(MEMBERS_AT, segment_id, datetime.fromisoformat(at))
                one_count_seconds = time.monotonic() - started
                if count != expected:
                    raise WrongResponse(f"{count} members at {at}, not {expected}")
    yield Row(
        name=f"{POINTS}-point series of memberCounts at {rows:,} history rows of one segment",
        ours=f"{seconds:.3f} s",
        compared=f"one point, counted in history by one SQL statement: {one_count_seconds:.3f} s",
        value=seconds,
        unit="s",
        max_value=MAX_SECONDS,
        details={
            "seconds": seconds,
            "one_count_seconds": one_count_seconds,
            "roll_up_seconds": roll_up_seconds,
        },
    )


async def fill(sql: Connection, segment_id: int, rows: int) -> tuple[datetime, datetime]:
    """Replace the history by `rows` rows of one segment, and return their first and last time."""
    until: datetime = await sql.fetchval("SELECT date_trunc('minute', now())")
    since = until - timedelta(days=DAYS)
    await sql.execute("SELECT make_history_partitions($1::date, 14)", since)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("DELETE FROM history")
    span = timedelta(days=DAYS - 10)
    await sql.execute(FILL, segment_id, rows, since, span, timeout=None)
    await sql.execute("VACUUM (FREEZE, ANALYZE)")
    await sql.execute("CHECKPOINT")
    return since, until


async def _fastest(
    client: GraphQLClient, variables: Mapping[str, object]
) -> tuple[float, dict[str, int]]:
    """Return the seconds of the fastest of some equal queries, and the counts by their times."""
    seconds = float("inf")
    counts: dict[str, int] = {}
    for _ in range(REPEATS):
        started = time.monotonic()
        data = await client(QUERY, **variables)
        seconds = min(seconds, time.monotonic() - started)
        counts = {point["at"]: point["count"] for point in data["segment"]["memberCounts"]}
    if len(counts) != POINTS:
        raise WrongResponse(f"a series has {len(counts)} points, not {POINTS}")
    return seconds, counts


async def _roll_up(settings: Settings) -> float:
    """Roll up the history as a worker does, and return the seconds."""
    database = Database(settings, name="bench", publish=lambda messages: None)
    try:
        started = time.monotonic()
        await roll_up_member_counts(database)
        return time.monotonic() - started
    finally:
        await database.dispose()
