"""The gauges that the API reads from the database, Redis and the object store at each scrape.

Each dependency has a timeout of two seconds at most. If it does not respond, its gauges are absent.
Users and memberships are counted up to a limit, above which the number is an estimate. Segments,
rollouts, reports, exports and unfinished imports are counted.
"""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import structlog

from segmentql import metrics
from segmentql.adapters.database import Database
from segmentql.adapters.metrics_endpoint import Samples
from segmentql.adapters.queue_stats import QueueStats
from segmentql.adapters.row_estimates import estimate_row_count
from segmentql.adapters.sessions import ReadSession
from segmentql.adapters.storage import Storage
from segmentql.csv_files.stats import read_stats
from segmentql.errors import SegmentQLError
from segmentql.exports import jobs as export_jobs
from segmentql.exports.file_kind import EXPORT_FILES
from segmentql.history import jobs as history_jobs
from segmentql.history.retention import read_earliest_at
from segmentql.idempotency import jobs as idempotency_jobs
from segmentql.imports import jobs as import_jobs
from segmentql.imports import stats as import_stats
from segmentql.memberships import expiry
from segmentql.memberships import jobs as membership_jobs
from segmentql.metrics import ScrapedGauge
from segmentql.objects import jobs as object_jobs
from segmentql.objects import service as objects
from segmentql.reports import jobs as report_jobs
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.rollouts import jobs as rollout_jobs
from segmentql.rollouts import reads as rollouts
from segmentql.segments import jobs as segment_jobs
from segmentql.segments import service as segments
from segmentql.tables import Cause

log = structlog.get_logger(__name__)

DATABASE_TIMEOUT_SECONDS: Final = 2
"""Far below Prometheus' scrape timeout of 10 s, because a table can be locked."""

STORE_TIMEOUT_SECONDS: Final = 0.3

MAX_SLUGS: Final = 20
"""The maximum number of rollouts with a progress gauge. The number of rollouts has no limit."""

_JOBS: Final = (
    *segment_jobs.JOBS,
    *membership_jobs.JOBS,
    *rollout_jobs.JOBS,
    *report_jobs.JOBS,
    *import_jobs.JOBS,
    *export_jobs.JOBS,
    *object_jobs.JOBS,
    *history_jobs.JOBS,
    *idempotency_jobs.JOBS,
)
QUEUES: Final = tuple(sorted({job.queue for job in _JOBS}))

ScrapedSamples = Sequence[tuple[ScrapedGauge, Samples]]


async def collect(database: Database, queue_stats: QueueStats, storage: Storage) -> ScrapedSamples:
    """Return the gauges of all three dependencies. Never raises if one does not respond."""
    database_gauges, redis_gauges, is_database_up, is_store_up = await asyncio.gather(
        _collect_database(database),
        _collect_redis(queue_stats),
        database.ping(),
        storage.ping(seconds=STORE_TIMEOUT_SECONDS),
    )
    is_up = {"database": is_database_up, "redis": bool(redis_gauges), "store": is_store_up}
    return [
        (metrics.BUILD_INFO, {(version("segmentql"),): 1}),
        (metrics.DEPENDENCY_UP, {(name,): float(up) for name, up in is_up.items()}),
        *database_gauges,
        *redis_gauges,
    ]


async def _collect_database(database: Database) -> ScrapedSamples:
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_SECONDS), database.read() as session:
            return [
                *await _memberships(session),
                *await _history(session),
                *await _rollouts(session),
                *await _files(session),
                *await _imports(session),
                *await _objects(session),
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


async def _history(session: ReadSession) -> ScrapedSamples:
    earliest_at = await read_earliest_at(session)
    timestamp = earliest_at.timestamp() if earliest_at else 0.0
    return [(metrics.HISTORY_EARLIEST_TIMESTAMP_SECONDS, {(): timestamp})]


async def _rollouts(session: ReadSession) -> ScrapedSamples:
    counts = await rollouts.count_by_status(session)
    progress = await rollouts.read_pass_progress(session, limit=MAX_SLUGS)
    return [
        (metrics.ROLLOUTS, {(status,): count for status, count in counts.items()}),
        (metrics.ROLLOUT_PROGRESS_RATIO, {(slug,): ratio for slug, ratio in progress.items()}),
    ]


async def _files(session: ReadSession) -> ScrapedSamples:
    reports = await read_stats(session, REPORT_FILES)
    exports = await read_stats(session, EXPORT_FILES)
    return [
        (metrics.REPORTS_STORED, {(status,): number for status, number in reports.counts.items()}),
        (metrics.REPORT_OLDEST_UNFINISHED_SECONDS, {(): reports.oldest_unfinished_seconds}),
        (metrics.EXPORTS_STORED, {(status,): number for status, number in exports.counts.items()}),
        (metrics.EXPORT_OLDEST_UNFINISHED_SECONDS, {(): exports.oldest_unfinished_seconds}),
    ]


async def _imports(session: ReadSession) -> ScrapedSamples:
    stats = await import_stats.read_stats(session)
    return [
        (
            metrics.IMPORTS_UNFINISHED,
            {(status,): number for status, number in stats.counts.items()},
        ),
        (metrics.IMPORT_OLDEST_WAITING_SECONDS, {(): stats.oldest_waiting_seconds}),
    ]


async def _objects(session: ReadSession) -> ScrapedSamples:
    overdue = await objects.read_overdue(session)
    return [
        (metrics.OBJECTS_OVERDUE, {(): overdue.number}),
        (metrics.OBJECTS_OVERDUE_OLDEST_SECONDS, {(): overdue.oldest_seconds}),
    ]


async def _collect_redis(queue_stats: QueueStats) -> ScrapedSamples:
    try:
        lengths = await queue_stats.lengths(QUEUES)
    except SegmentQLError as error:
        log.warning("queues_not_read", reason=type(error).__name__)
        return []
    return [(metrics.QUEUE_MESSAGES, {key: float(length) for key, length in lengths.items()})]
