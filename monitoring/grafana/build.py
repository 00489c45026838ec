"""Builds the Grafana dashboards from the list of panels in this file.

    python monitoring/grafana/build.py

The JSON is Grafana's dashboard model, schema 39:
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "segmentql"}
SCHEMA = 39
COLUMNS, WIDTH, HEIGHT = 24, 8, 8


@dataclass(frozen=True)
class Panel:
    """A graph. Each query has a legend for its lines."""

    title: str
    unit: str
    """The unit by Grafana's name, such as `s`, `reqps`, `percentunit` or `short`."""
    queries: Sequence[tuple[str, str]]
    description: str = ""


def per_second(metric: str, by: str, selector: str = "") -> tuple[str, str]:
    """Return the query for the rate of a counter, by a label."""
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))", f"{{{{{by}}}}}"


def quantile(q: float, metric: str, by: str = "", selector: str = "") -> tuple[str, str]:
    """Return the query for a quantile of a histogram, by a label or in total."""
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({metric}_bucket{selector}[$__rate_interval]))"
    legend = f"{{{{{by}}}}}" if by else f"p{q * 100:g}"
    return f"histogram_quantile({q}, {rates})", legend


def gauge(metric: str, by: str = "", legend: str = "") -> tuple[str, str]:
    """Return the query for a gauge that all API processes expose with the same value."""
    if by:
        return f"max by ({by}) ({metric})", f"{{{{{by}}}}}"
    return f"max({metric})", legend


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

WORK = (
    Panel(
        "Queued messages",
        "short",
        [
            ("max by (queue, state) (segmentql_queue_messages)", "{{queue}} {{state}}"),
        ],
        "ready, delayed, or dead after the last retry.",
    ),
    Panel("Jobs started", "ops", [per_second("segmentql_actor_starts_total", "actor")]),
    Panel(
        "Job outcomes and retries",
        "ops",
        [
            (
                "sum by (actor, outcome) (rate(segmentql_actor_runs_total[$__rate_interval]))",
                "{{actor}} {{outcome}}",
            ),
            (
                "sum by (actor) (rate(segmentql_actor_retries_total[$__rate_interval]))",
                "{{actor}} retries",
            ),
        ],
    ),
    Panel("Job duration, p99", "s", [quantile(0.99, "segmentql_actor_duration_seconds", "actor")]),
    Panel(
        "Lost messages",
        "ops",
        [per_second("segmentql_messages_lost_total", "job")],
        "Messages that could not be sent to Redis. The scheduler recovers their work.",
    ),
    Panel(
        "Scheduler leaders and failed checks",
        "short",
        [
            ("sum(segmentql_scheduler_leader)", "leaders (1)"),
            per_second("segmentql_periodic_check_failures_total", "check"),
        ],
    ),
    Panel(
        "Unrecorded leaves",
        "short",
        [gauge("segmentql_memberships_due", "cause")],
        "Memberships that have ended. Reads do not return them.",
    ),
    Panel(
        "Age of the oldest unrecorded leave",
        "s",
        [gauge("segmentql_memberships_due_oldest_seconds", legend="oldest")],
    ),
    Panel(
        "Lag of the settled history",
        "s",
        [gauge("segmentql_history_settled_lag_seconds", legend="longest")],
        "It grows while a transaction that changes memberships is open.",
    ),
    Panel(
        "Retention of history",
        "short",
        [
            (
                "sum(increase(segmentql_history_partitions_dropped_total[$__range]))",
                "months dropped",
            ),
            ("sum(increase(segmentql_history_drops_postponed_total[1h]))", "postponed per hour"),
        ],
        "Months dropped in the shown time, and postponed attempts per hour.",
    ),
    Panel(
        "Beginning of history",
        "dateTimeAsIso",
        [
            (
                "1000 * max(segmentql_history_earliest_timestamp_seconds > 0)",
                "earliest time",
            )
        ],
        "No line if no history was dropped.",
    ),
    Panel(
        "Consumers of the change feed",
        "short",
        [("sum by (kind) (segmentql_feed_consumers)", "{{kind}}")],
        "Waiting calls of changes, and open subscriptions.",
    ),
    Panel(
        "Pages and changes of the feed",
        "ops",
        [
            per_second("segmentql_feed_pages_total", "source"),
            ("sum(rate(segmentql_feed_changes_total[$__rate_interval]))", "changes"),
        ],
        "window: from memory; database: by a statement of its own.",
    ),
    Panel(
        "Lag of consumers of the feed, in positions",
        "short",
        [
            quantile(0.5, "segmentql_feed_lag_positions"),
            quantile(0.99, "segmentql_feed_lag_positions"),
        ],
    ),
    Panel("Rollouts by status", "short", [gauge("segmentql_rollouts", "status")]),
    Panel(
        "Progress of rollout passes",
        "percentunit",
        [gauge("segmentql_rollout_progress_ratio", "slug")],
        "The 20 most recent running rollouts.",
    ),
    Panel("Stored reports", "short", [gauge("segmentql_reports_stored", "status")]),
    Panel(
        "Finished reports",
        "ops",
        [per_second("segmentql_reports_total", "outcome")],
    ),
    Panel(
        "Time until a report is ready",
        "s",
        [
            quantile(0.5, "segmentql_report_duration_seconds"),
            quantile(0.99, "segmentql_report_duration_seconds"),
            gauge("segmentql_report_oldest_unfinished_seconds", legend="oldest unfinished"),
        ],
    ),
    Panel("Stored exports", "short", [gauge("segmentql_exports_stored", "status")]),
    Panel("Finished exports", "ops", [per_second("segmentql_exports_total", "outcome")]),
    Panel(
        "Time until an export is ready",
        "s",
        [
            quantile(0.5, "segmentql_export_duration_seconds"),
            quantile(0.99, "segmentql_export_duration_seconds"),
            gauge("segmentql_export_oldest_unfinished_seconds", legend="oldest unfinished"),
        ],
    ),
    Panel(
        "Unfinished imports",
        "short",
        [gauge("segmentql_imports_unfinished", "status")],
        "AWAITING_UPLOAD, VALIDATED and HELD wait for the client.",
    ),
    Panel(
        "Finished imports",
        "ops",
        [per_second("segmentql_imports_total", "status")],
    ),
    Panel(
        "Rows of finished imports",
        "ops",
        [per_second("segmentql_import_rows_total", "outcome")],
    ),
    Panel(
        "Time to read and check a list",
        "s",
        [
            quantile(0.5, "segmentql_import_validation_seconds"),
            quantile(0.99, "segmentql_import_validation_seconds"),
        ],
    ),
    Panel(
        "Time until an import is completed",
        "s",
        [
            quantile(0.5, "segmentql_import_duration_seconds"),
            quantile(0.99, "segmentql_import_duration_seconds"),
        ],
    ),
    Panel(
        "Longest wait of an import for a worker",
        "s",
        [gauge("segmentql_import_oldest_waiting_seconds", legend="longest")],
    ),
    Panel(
        "Objects to delete from the store",
        "short",
        [gauge("segmentql_objects_overdue", legend="overdue")],
        "Files that should be deleted and may still exist, perhaps with an erased key.",
    ),
    Panel(
        "Age of the oldest object to delete",
        "s",
        [gauge("segmentql_objects_overdue_oldest_seconds", legend="oldest")],
    ),
)

DATA = (
    Panel("Users", "short", [gauge("segmentql_users", legend="users")]),
    Panel("Segments", "short", [gauge("segmentql_segments", legend="segments")]),
    Panel("Memberships", "short", [gauge("segmentql_memberships", legend="memberships")]),
    Panel("Joins by cause", "ops", [per_second("segmentql_joins_total", "cause")]),
    Panel("Leaves by cause", "ops", [per_second("segmentql_leaves_total", "cause")]),
    Panel(
        "Joins minus leaves per hour",
        "short",
        [
            (
                "sum(increase(segmentql_joins_total[1h]))"
                " - sum(increase(segmentql_leaves_total[1h]))",
                "growth",
            )
        ],
    ),
)

DASHBOARDS = {
    "service": ("SegmentQL: service", SERVICE),
    "work": ("SegmentQL: work", WORK),
    "data": ("SegmentQL: data", DATA),
}


def dashboard(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    return {
        "uid": f"segmentql-{uid}",
        "title": title,
        "tags": ["segmentql"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS // WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for position, (query, legend) in enumerate(panel.queries)
        ],
    }


def render(name: str) -> str:
    title, panels = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, panels), indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(render(name))
