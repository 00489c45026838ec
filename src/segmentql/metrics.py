"""Every collector, on one page; `docs/metrics.md` explains them, and a test holds the two equal.

With several processes (`PROMETHEUS_MULTIPROC_DIR`, prometheus-client's own variable) each writes
its values to a file of its own there, and any of them answers for all.
"""

from prometheus_client import Counter, Gauge, Histogram

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
REQUESTS_UNDER_WAY = Gauge(
    "segmentql_requests_under_way",
    "GraphQL requests being answered now.",
    multiprocess_mode="livesum",
)
ERRORS = Counter("segmentql_errors", "GraphQL errors answered, by extensions.code.", ["code"])
KEYS_REFUSED = Counter(
    "segmentql_keys_refused",
    "Requests refused for want of a valid API key, by what was wrong with theirs.",
    ["flaw"],
)
TURNED_AWAY = Counter(
    "segmentql_requests_turned_away",
    "Requests to /graphql that were not looked at, or not to their end, by reason.",
    ["reason"],
)
RATE_OUTAGES = Counter(
    "segmentql_rate_outages",
    "Times that Redis was away, so that each process counted its callers' requests alone.",
)
BATCH_KEYS = Histogram(
    "segmentql_batch_keys",
    "Keys that one statement answered, by loader.",
    ["loader"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_RETRIES = Counter(
    "segmentql_transaction_retries", "Transactions run again after a deadlock or a conflict."
)
MESSAGES_LOST = Counter(
    "segmentql_messages_lost",
    "Job messages that Redis did not take; the scheduler finds their work.",
    ["job"],
)
ACTOR_RUNS = Counter(
    "segmentql_actor_runs", "Runs of an actor, by how they ended.", ["actor", "outcome"]
)
ACTOR_SECONDS = Histogram(
    "segmentql_actor_duration_seconds",
    "Time that one run of an actor took.",
    ["actor"],
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600),
)
LEAVES_RECORDED = Counter(
    "segmentql_leaves_recorded", "Memberships tidied by workers, by cause.", ["cause"]
)
ROLLOUT_CHANGES = Counter(
    "segmentql_rollout_changes", "Members that rollouts put in or took out, by change.", ["change"]
)
REPORTS = Counter("segmentql_reports", "Reports that are over, by how they ended.", ["outcome"])
REPORT_SECONDS = Histogram(
    "segmentql_report_duration_seconds",
    "Time from asking for a report until it was ready.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)

UNTIDIED = "segmentql_memberships_due"
"""Read from the database when Prometheus asks; see `app.py`."""
UNTIDIED_HELP = "Memberships that have ended but whose leave is not yet recorded, by cause."
