"""The panels of the dashboard "SegmentQL: service": requests, statements, dependencies."""

from panels import Panel, gauge, per_second, quantile

REQUESTS, SECONDS = "segmentql_requests_total", "segmentql_request_duration_seconds"
STATEMENTS = "segmentql_statement_duration_seconds"

SERVICE = (
    Panel("Requests", "reqps", [per_second(REQUESTS, "operation")]),
    Panel(
        "Outcomes",
        "reqps",
        [per_second(REQUESTS, "outcome")],
        "failed: at least one field failed; rejected: the request was not executed.",
    ),
    Panel("Errors by code", "reqps", [per_second("segmentql_errors_total", "code")]),
    Panel("Duration, p50 by operation", "s", [quantile(0.5, SECONDS, "operation")]),
    Panel("Duration, p99 by operation", "s", [quantile(0.99, SECONDS, "operation")]),
    Panel("Requests in progress", "short", [("sum(segmentql_requests_in_flight)", "in progress")]),
    Panel(
        "Rejected requests and connections",
        "reqps",
        [
            per_second("segmentql_requests_rejected_total", "reason"),
            per_second("segmentql_connections_closed_total", "reason"),
            per_second("segmentql_authentication_failures_total", "reason"),
            (
                "sum(rate(segmentql_rate_limiter_outages_total[$__rate_interval]))",
                "rate limiter without Redis",
            ),
        ],
        "Rejected requests, closed connections and authentication failures, by reason.",
    ),
    Panel(
        "Connections closed",
        "cps",
        [per_second("segmentql_connections_closed_total", "reason")],
        "HTTP connections that the server rejected or closed early.",
    ),
    Panel(
        "Subscriptions",
        "short",
        [
            ("sum by (transport) (segmentql_streams)", "{{transport}} open"),
            per_second("segmentql_stream_results_total", "transport"),
            per_second("segmentql_streams_ended_total", "reason"),
        ],
        "Open streams, and per second: their results, and the streams that ended, by reason.",
    ),
    Panel(
        "SQL statements",
        "ops",
        [per_second(f"{STATEMENTS}_count", "kind")],
    ),
    Panel(
        "SQL statements, p99",
        "s",
        [quantile(0.99, STATEMENTS, "kind")],
    ),
    Panel(
        "Keys per batch, p50",
        "short",
        [quantile(0.5, "segmentql_batch_keys", "loader")],
        "Concurrent requests share a batch, which is one statement.",
    ),
    Panel(
        "Connections to PostgreSQL",
        "short",
        [
            ("sum by (pool) (segmentql_pool_connections_used)", "{{pool}} in use"),
            ("sum by (pool) (segmentql_pool_connections_limit)", "{{pool}} limit"),
        ],
    ),
    Panel(
        "Waiting for a connection, p99",
        "s",
        [quantile(0.99, "segmentql_pool_wait_seconds", "pool")],
    ),
    Panel(
        "Transaction retries",
        "ops",
        [("sum(rate(segmentql_transaction_retries_total[$__rate_interval]))", "retries")],
    ),
    Panel(
        "Reads at the primary instead of the replica",
        "short",
        [
            ("sum(segmentql_replica_fallback)", "processes that read the primary"),
            per_second("segmentql_replica_fallbacks_total", "reason"),
            ("sum(rate(segmentql_replica_retries_total[$__rate_interval]))", "retried reads"),
        ],
        "Processes whose reads go to the primary, and per second: switches, and retried reads.",
    ),
    Panel(
        "Lag of the replica",
        "s",
        [("max(segmentql_replica_lag_seconds)", "longest")],
        "Age of the oldest change of the primary that the replica has not replayed.",
    ),
    Panel(
        "Idempotent replays",
        "ops",
        [per_second("segmentql_idempotent_replays_total", "state")],
        "Mutations that returned the result of an earlier call with the same idempotency key.",
    ),
    Panel(
        "Dependencies",
        "short",
        [
            gauge("segmentql_dependency_up", "dependency"),
            ("sum by (version) (segmentql_build_info)", "APIs with version {{version}}"),
        ],
        "1 if the dependency responds.",
    ),
)
