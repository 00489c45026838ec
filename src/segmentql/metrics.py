"""Every collector, on one page; `docs/metrics.md` explains them, and a test holds the two equal.

With several processes (`PROMETHEUS_MULTIPROC_DIR`, prometheus-client's own variable) each writes
its values to a file of its own there, and any of them answers for all.
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from segmentql import shared_metrics

shared_metrics.install()

REQUESTS = Counter(
    "segmentql_requests",
    "GraphQL requests answered, by operation name and outcome.",
    ["operation", "outcome"],
)
REQUEST_SECONDS = Histogram(
    "segmentql_request_duration_seconds",
    "Time from a GraphQL request's last byte to its answer.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
REQUESTS_IN_FLIGHT = Gauge(
    "segmentql_requests_in_flight",
    "GraphQL requests being answered now.",
    multiprocess_mode="livesum",
)
ERRORS = Counter("segmentql_errors", "GraphQL errors answered, by extensions.code.", ["code"])
AUTHENTICATION_FAILURES = Counter(
    "segmentql_authentication_failures",
    "Requests refused for want of a valid API key, by what was wrong with theirs.",
    ["reason"],
)
REQUESTS_REJECTED = Counter(
    "segmentql_requests_rejected",
    "Requests to /graphql that were not looked at, or not to their end, by reason.",
    ["reason"],
)
CONNECTIONS_CLOSED = Counter(
    "segmentql_connections_closed",
    "HTTP connections that the server rejected or closed early, by reason.",
    ["reason"],
)
RATE_LIMITER_OUTAGES = Counter(
    "segmentql_rate_limiter_outages",
    "Times that Redis was away, so that each process counted its callers' requests alone.",
)
BATCH_KEYS = Histogram(
    "segmentql_batch_keys",
    "Keys that one statement answered, by loader.",
    ["loader"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
STATEMENT_SECONDS = Histogram(
    "segmentql_statement_duration_seconds",
    "Time that one SQL statement took, by whether its session reads or writes.",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
POOL_USED = Gauge(
    "segmentql_pool_connections_used",
    "Connections to PostgreSQL in use, by pool.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_LIMIT = Gauge(
    "segmentql_pool_connections_limit",
    "Connections to PostgreSQL that there may be, by pool.",
    ["pool"],
    multiprocess_mode="livesum",
)
POOL_WAIT_SECONDS = Histogram(
    "segmentql_pool_wait_seconds",
    "Time until a connection was there, by pool.",
    ["pool"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
)
TRANSACTION_RETRIES = Counter(
    "segmentql_transaction_retries", "Transactions run again after a deadlock or a conflict."
)
MESSAGES_LOST = Counter(
    "segmentql_messages_lost",
    "Job messages that Redis did not take; the scheduler finds their work.",
    ["job"],
)
ACTOR_STARTS = Counter("segmentql_actor_starts", "Runs of an actor that began.", ["actor"])
ACTOR_RUNS = Counter(
    "segmentql_actor_runs", "Runs of an actor, by how they ended.", ["actor", "outcome"]
)
ACTOR_RETRIES = Counter(
    "segmentql_actor_retries",
    "Runs of an actor that began because one before had failed.",
    ["actor"],
)
ACTOR_SECONDS = Histogram(
    "segmentql_actor_duration_seconds",
    "Time that one run of an actor took.",
    ["actor"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600),
)
JOINS = Counter("segmentql_joins", "Joins put on record, by cause.", ["cause"])
LEAVES = Counter("segmentql_leaves", "Leaves put on record, by cause.", ["cause"])
REPORTS = Counter("segmentql_reports", "Reports that are over, by how they ended.", ["outcome"])
REPORT_SECONDS = Histogram(
    "segmentql_report_duration_seconds",
    "Time from asking for a report until it was ready.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
SCHEDULER_LEADER = Gauge(
    "segmentql_scheduler_leader",
    "1 in the worker whose scheduler is the one that acts.",
    multiprocess_mode="livesum",
)
PERIODIC_CHECK_FAILURES = Counter(
    "segmentql_periodic_check_failures", "Looks of the scheduler that failed, by watch.", ["check"]
)


@dataclass(frozen=True)
class ScrapedGauge:
    """A gauge that is asked of database, Redis and store when Prometheus asks; by the API alone."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


BUILD_INFO: Final = ScrapedGauge("segmentql_build_info", "1, with the version.", ("version",))
DEPENDENCY_UP: Final = ScrapedGauge(
    "segmentql_dependency_up", "Whether database, redis and store answer: 1 or 0.", ("dependency",)
)
MEMBERSHIPS_DUE: Final = ScrapedGauge(
    "segmentql_memberships_due",
    "Memberships that have ended but whose leave is not yet recorded, by cause.",
    ("cause",),
)
MEMBERSHIPS_DUE_OLDEST: Final = ScrapedGauge(
    "segmentql_memberships_due_oldest_seconds",
    "For how long the oldest of them has been waiting; 0 where none is.",
)
ROLLOUTS: Final = ScrapedGauge(
    "segmentql_rollouts", "Rollouts of segments that exist.", ("status",)
)
ROLLOUT_PROGRESS: Final = ScrapedGauge(
    "segmentql_rollout_progress_ratio",
    "How far the passes under way are, 0 to 1, of 20 segments at most.",
    ("slug",),
)
REPORTS_STORED: Final = ScrapedGauge(
    "segmentql_reports_stored", "Reports that are kept.", ("status",)
)
REPORT_WAITING: Final = ScrapedGauge(
    "segmentql_report_oldest_waiting_seconds",
    "For how long the oldest report that is not over has been asked for; 0 where all are.",
)
USERS: Final = ScrapedGauge("segmentql_users", "Users stored.")
SEGMENTS: Final = ScrapedGauge("segmentql_segments", "Segments that exist.")
MEMBERSHIPS: Final = ScrapedGauge("segmentql_memberships", "Memberships stored.")
QUEUE_MESSAGES: Final = ScrapedGauge(
    "segmentql_queue_messages",
    "Messages in Redis: ready to be taken, delayed, or dead after their last retry.",
    ("queue", "state"),
)
