"""What the API asks of the database, Redis and the store when Prometheus asks it.

Each is asked for a second or two at most, and what does not answer is absent rather than wrong. The
cost does not grow with the data: what could, is counted up to a limit and then estimated.
"""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import structlog

from segmentql import metrics
from segmentql.adapters.database import Database, ReadSession, estimate_row_count
from segmentql.adapters.metrics_endpoint import Samples
from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.storage import Storage
from segmentql.errors import SegmentQLError
from segmentql.memberships import expiry
from segmentql.metrics import ScrapedGauge
from segmentql.reports import service as reports
from segmentql.rollouts import service as rollouts
from segmentql.segments import service as segments
from segmentql.tables import Cause

log = structlog.get_logger(__name__)

DATABASE_SECONDS: Final = 2
"""Somebody may hold a table, and Prometheus waits for ten seconds at most."""

STORE_SECONDS: Final = 0.3
MAX_SLUGS: Final = 20
"""Rollouts under way that are told apart; analysts make as many as they like."""

ScrapedSamples = Sequence[tuple[ScrapedGauge, Samples]]


async def collect(database: Database, queue_stats: QueueStats, storage: Storage) -> ScrapedSamples:
    """Ask all three, side by side; never raises for one that is away."""
    of_database, of_redis, ping, store = await asyncio.gather(
        _collect_database(database),
        _collect_redis(queue_stats),
        database.ping(),
        storage.ping(seconds=STORE_SECONDS),
    )
    up = {"database": ping, "redis": bool(of_redis), "store": store}
    return [
        (metrics.BUILD_INFO, {(version("segmentql"),): 1}),
        (metrics.DEPENDENCY_UP, {(name,): float(is_up) for name, is_up in up.items()}),
        *of_database,
        *of_redis,
    ]


async def _collect_database(database: Database) -> ScrapedSamples:
    try:
        async with asyncio.timeout(DATABASE_SECONDS), database.read() as session:
            return [
                *await _memberships(session),
                *await _rollouts(session),
                *await _reports(session),
                (metrics.USERS, {(): await estimate_row_count(session, "users")}),
                (metrics.SEGMENTS, {(): await segments.count(session)}),
            ]
    except (SegmentQLError, TimeoutError) as error:
        log.warning("metrics_not_read", reason=type(error).__name__)
        return []


async def _memberships(session: ReadSession) -> ScrapedSamples:
    unrecorded = await expiry.unrecorded(session)
    due: Samples = {
        (Cause.TTL,): unrecorded.by_ttl,
        (Cause.SEGMENT_DELETED,): unrecorded.by_segment,
    }
    return [
        (metrics.MEMBERSHIPS, {(): await estimate_row_count(session, "memberships")}),
        (metrics.MEMBERSHIPS_DUE, due),
        (metrics.MEMBERSHIPS_DUE_OLDEST_SECONDS, {(): float(unrecorded.oldest_seconds)}),
    ]


async def _rollouts(session: ReadSession) -> ScrapedSamples:
    numbers = await rollouts.count_by_status(session)
    progress = await rollouts.read_pass_progress(session, limit=MAX_SLUGS)
    return [
        (metrics.ROLLOUTS, {(status,): number for status, number in numbers.items()}),
        (metrics.ROLLOUT_PROGRESS_RATIO, {(slug,): ratio for slug, ratio in progress.items()}),
    ]


async def _reports(session: ReadSession) -> ScrapedSamples:
    kept = await reports.count_by_status(session)
    return [
        (metrics.REPORTS_STORED, {(status,): number for status, number in kept.numbers.items()}),
        (metrics.REPORT_OLDEST_WAITING_SECONDS, {(): kept.oldest_waiting_seconds}),
    ]


async def _collect_redis(queue_stats: QueueStats) -> ScrapedSamples:
    try:
        lengths = await queue_stats.lengths()
    except SegmentQLError as error:
        log.warning("queues_not_read", reason=type(error).__name__)
        return []
    return [(metrics.QUEUE_MESSAGES, {place: float(length) for place, length in lengths.items()})]
