"""All metrics. `docs/metrics.md` describes them, and a test compares both.

If several processes share `PROMETHEUS_MULTIPROC_DIR` (a variable of prometheus-client), each writes
its values to its own file there, and each exposes the values of all processes. The metrics that
each query changes are buffered (`buffered_metrics.py`).
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from segmentql import shared_metrics
from segmentql.buffered_metrics import BufferedCounter, BufferedGauge, BufferedHistogram

shared_metrics.install()

REQUESTS = BufferedCounter(
    "segmentql_requests",
    "GraphQL and OpenFeature requests completed, by operation name and outcome.",
    ["operation", "outcome"],
)
REQUEST_DURATION_SECONDS = BufferedHistogram(
    "segmentql_request_duration_seconds",
    "Execution time of a request, without its reading and sending, by operation name.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REQUESTS_IN_FLIGHT = BufferedGauge(
    "segmentql_requests_in_flight",
    "Requests that are being executed.",
    multiprocess_mode="livesum",
)
ERRORS = Counter("segmentql_errors", "Errors returned, by code.", ["code"])
AUTHENTICATION_FAILURES = Counter(
    "segmentql_authentication_failures",
    "Requests rejected for a missing or invalid API key, by reason.",
    ["reason"],
)
REQUESTS_REJECTED = Counter(
    "segmentql_requests_rejected",
    "Requests to /graphql and OFREP that were rejected or stopped early, by reason.",
    ["reason"],
)
CONNECTIONS_CLOSED = Counter(
    "segmentql_connections_closed",
    "HTTP connections that the server rejected or closed early, by reason.",
    ["reason"],
)
STREAMS = Gauge(
    "segmentql_streams",
    "Open streams of subscriptions, by transport (sse or websocket).",
    ["transport"],
    multiprocess_mode="livesum",
)
STREAM_RESULTS = Counter(
    "segmentql_stream_results", "Results of subscriptions sent, by transport.", ["transport"]
)
STREAMS_ENDED = Counter(
    "segmentql_streams_ended", "Streams of subscriptions that ended, by reason.", ["reason"]
)
RATE_LIMITER_OUTAGES = Counter(
    "segmentql_rate_limiter_outages",
    "Redis outages during which each process counted requests for itself.",
)
BATCH_KEYS = BufferedHistogram(
    "segmentql_batch_keys",
    "Keys in one batch of a loader, by loader.",
    ["loader"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
STATEMENT_DURATION_SECONDS = BufferedHistogram(
    "segmentql_statement_duration_seconds",
    "Duration of an SQL statement, by the kind of its session (read or write).",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
POOL_CONNECTIONS_USED = BufferedGauge(
    "segmentql_pool_connections_used",
    "Connections to PostgreSQL in use, by pool.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_CONNECTIONS_LIMIT = Gauge(
    "segmentql_pool_connections_limit",
    "Maximum number of connections to PostgreSQL, by pool.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_WAIT_SECONDS = BufferedHistogram(
    "segmentql_pool_wait_seconds",
    "Time that a caller waited for a connection, by pool.",
    ["pool"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
)
TRANSACTION_RETRIES = Counter(
    "segmentql_transaction_retries", "Transactions retried after a deadlock or a conflict."
)
REPLICA_FALLBACK = Gauge(
    "segmentql_replica_fallback",
    "Processes whose reads go to the primary because the replica cannot be used.",
    multiprocess_mode="livesum",
)
REPLICA_FALLBACKS = Counter(
    "segmentql_replica_fallbacks",
    "Switches of reads from the replica to the primary, by reason.",
    ["reason"],
)
REPLICA_LAG_SECONDS = Gauge(
    "segmentql_replica_lag_seconds",
    "Age of the oldest change of the primary that the replica has not replayed, or 0 if none.",
    multiprocess_mode="livemax",
)
REPLICA_RETRIES = Counter(
    "segmentql_replica_retries", "Reads that failed at the replica and were retried at the primary."
)
IDEMPOTENT_REPLAYS = Counter(
    "segmentql_idempotent_replays",
    "Mutations that returned the result of an earlier call with the same idempotency key, by the"
    " state of that call (stored or running).",
    ["state"],
)
MESSAGES_LOST = Counter(
    "segmentql_messages_lost",
    "Job messages that could not be sent to Redis, by job. The scheduler recovers their work.",
    ["job"],
)
ACTOR_STARTS = Counter(
    "segmentql_actor_starts", "Runs of an actor that started, by actor.", ["actor"]
)
ACTOR_RUNS = Counter(
    "segmentql_actor_runs",
    "Runs of an actor that ended, by actor and outcome.",
    ["actor", "outcome"],
)
ACTOR_RETRIES = Counter(
    "segmentql_actor_retries",
    "Runs of an actor that were retries of a failed run, by actor.",
    ["actor"],
)
ACTOR_DURATION_SECONDS = Histogram(
    "segmentql_actor_duration_seconds",
    "Duration of a run of an actor, by actor.",
    ["actor"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600),
)
JOINS = Counter("segmentql_joins", "Joins recorded in history, by cause.", ["cause"])
LEAVES = Counter("segmentql_leaves", "Leaves recorded in history, by cause.", ["cause"])
HISTORY_SETTLED_LAG_SECONDS = Gauge(
    "segmentql_history_settled_lag_seconds",
    "Time since a process that follows history has read all changes, or 0 if it follows none.",
    multiprocess_mode="livemax",
)
HISTORY_PARTITIONS_DROPPED = Counter(
    "segmentql_history_partitions_dropped",
    "Months of history that were dropped because of the retention.",
)
HISTORY_DROPS_POSTPONED = Counter(
    "segmentql_history_drops_postponed",
    "Attempts to drop old history that were postponed.",
)
FEED_CONSUMERS = Gauge(
    "segmentql_feed_consumers",
    "Consumers of the change feed, by kind: waiting calls of changes, and open streams.",
    ["kind"],
    multiprocess_mode="livesum",
)
FEED_PAGES = Counter(
    "segmentql_feed_pages",
    "Pages of the change feed read for a consumer, by source: window (shared) or database.",
    ["source"],
)
FEED_CHANGES = Counter(
    "segmentql_feed_changes", "Changes delivered to consumers of the change feed."
)
FEED_LAG_POSITIONS = Histogram(
    "segmentql_feed_lag_positions",
    "How many positions of history a page ends before the newest settled change. Positions have"
    " gaps, so it is an upper bound of the changes.",
    buckets=(0, 10, 100, 1000, 10_000, 100_000, 1_000_000),
)
REPORTS = Counter("segmentql_reports", "Reports finished, by outcome.", ["outcome"])
REPORT_DURATION_SECONDS = Histogram(
    "segmentql_report_duration_seconds",
    "Time from the request for a report until it was ready.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
IMPORTS = Counter("segmentql_imports", "Imports finished, by their last status.", ["status"])
IMPORT_ROWS = Counter(
    "segmentql_import_rows", "Rows of the lists of finished imports, by outcome.", ["outcome"]
)
IMPORT_VALIDATION_SECONDS = Histogram(
    "segmentql_import_validation_seconds",
    "Time of a successful attempt to read and check the list of an import.",
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
)
IMPORT_DURATION_SECONDS = Histogram(
    "segmentql_import_duration_seconds",
    "Time from startImport, or from applyImport, until an import was completed.",
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
EXPORTS = Counter("segmentql_exports", "Exports finished, by outcome.", ["outcome"])
EXPORT_DURATION_SECONDS = Histogram(
    "segmentql_export_duration_seconds",
    "Time from the request for an export until it was ready.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
SCHEDULER_LEADER = Gauge(
    "segmentql_scheduler_leader",
    "1 in the worker whose scheduler is the leader.",
    multiprocess_mode="livesum",
)
PERIODIC_CHECK_FAILURES = Counter(
    "segmentql_periodic_check_failures",
    "Periodic checks of the scheduler that failed, by check.",
    ["check"],
)


@dataclass(frozen=True)
class ScrapedGauge:
    """A gauge that the API reads from the database, Redis or the object store at each scrape."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


BUILD_INFO: Final = ScrapedGauge(
    "segmentql_build_info", "Always 1, with the version as a label.", ("version",)
)
DEPENDENCY_UP: Final = ScrapedGauge(
    "segmentql_dependency_up",
    "1 if the dependency (database, redis, store) responds, otherwise 0.",
    ("dependency",),
)
HISTORY_EARLIEST_TIMESTAMP_SECONDS: Final = ScrapedGauge(
    "segmentql_history_earliest_timestamp_seconds",
    "Beginning of history as a Unix time, or 0 if no history was dropped.",
)
MEMBERSHIPS_DUE: Final = ScrapedGauge(
    "segmentql_memberships_due",
    "Memberships that have ended but whose leave is not recorded yet, by cause.",
    ("cause",),
)
MEMBERSHIPS_DUE_OLDEST_SECONDS: Final = ScrapedGauge(
    "segmentql_memberships_due_oldest_seconds",
    "Time since the oldest unrecorded membership ended, or 0 if there is none.",
)
ROLLOUTS: Final = ScrapedGauge(
    "segmentql_rollouts", "Rollouts of existing segments, by status.", ("status",)
)
ROLLOUT_PROGRESS_RATIO: Final = ScrapedGauge(
    "segmentql_rollout_progress_ratio",
    "Progress of the running rollout passes, 0 to 1, of at most 20 segments.",
    ("slug",),
)
REPORTS_STORED: Final = ScrapedGauge(
    "segmentql_reports_stored", "Reports stored, by status.", ("status",)
)
REPORT_OLDEST_UNFINISHED_SECONDS: Final = ScrapedGauge(
    "segmentql_report_oldest_unfinished_seconds",
    "Age of the oldest unfinished report, or 0 if there is none.",
)
IMPORTS_UNFINISHED: Final = ScrapedGauge(
    "segmentql_imports_unfinished", "Unfinished imports, by status.", ("status",)
)
IMPORT_OLDEST_WAITING_SECONDS: Final = ScrapedGauge(
    "segmentql_import_oldest_waiting_seconds",
    "Longest time that an import has waited for a worker, or 0 if none waits.",
)
EXPORTS_STORED: Final = ScrapedGauge(
    "segmentql_exports_stored", "Exports stored, by status.", ("status",)
)
EXPORT_OLDEST_UNFINISHED_SECONDS: Final = ScrapedGauge(
    "segmentql_export_oldest_unfinished_seconds",
    "Age of the oldest unfinished export, or 0 if there is none.",
)
OBJECTS_OVERDUE: Final = ScrapedGauge(
    "segmentql_objects_overdue",
    "Objects that should be deleted from the object store and may still exist.",
)
OBJECTS_OVERDUE_OLDEST_SECONDS: Final = ScrapedGauge(
    "segmentql_objects_overdue_oldest_seconds",
    "Time since the oldest of these objects should have been deleted, or 0 if there is none.",
)
USERS: Final = ScrapedGauge("segmentql_users", "Users stored.")
SEGMENTS: Final = ScrapedGauge("segmentql_segments", "Existing segments.")
MEMBERSHIPS: Final = ScrapedGauge("segmentql_memberships", "Memberships stored.")
QUEUE_MESSAGES: Final = ScrapedGauge(
    "segmentql_queue_messages",
    "Messages in Redis, by queue and state: ready, delayed, or dead after the last retry.",
    ("queue", "state"),
)
