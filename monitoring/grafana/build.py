"""Writes the dashboards: what is asked is here, what Grafana wants around it is made.

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
    """A graph of one or more queries, each with the legend of its lines."""

    title: str
    unit: str
    """Grafana's name for it: `s`, `reqps`, `percentunit`, `short`."""
    queries: Sequence[tuple[str, str]]
    description: str = ""


def per_second(metric: str, by: str, where: str = "") -> tuple[str, str]:
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))", f"{{{{{by}}}}}"


def quantile(q: float, metric: str, by: str = "", where: str = "") -> tuple[str, str]:
    """A quantile of a histogram, for each value of a label or of all together."""
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval]))"
    legend = f"{{{{{by}}}}}" if by else f"p{q * 100:g}"
    return f"histogram_quantile({q}, {rates})", legend


def asked(metric: str, by: str = "", legend: str = "") -> tuple[str, str]:
    """What every API says alike: the largest."""
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
        "failed: some field failed; rejected: nothing was executed.",
    ),
    Panel("Errors by code", "reqps", [per_second("segmentql_errors_total", "code")]),
    Panel("Duration, p50 by operation", "s", [quantile(0.5, SECONDS, "operation")]),
    Panel("Duration, p99 by operation", "s", [quantile(0.99, SECONDS, "operation")]),
    Panel("Requests under way", "short", [("sum(segmentql_requests_in_flight)", "under way")]),
    Panel(
        "Not let in",
        "reqps",
        [
            per_second("segmentql_requests_rejected_total", "reason"),
            per_second("segmentql_connections_closed_total", "reason"),
            per_second("segmentql_authentication_failures_total", "reason"),
            (
                "sum(rate(segmentql_rate_limiter_outages_total[$__rate_interval]))",
                "rates, no Redis",
            ),
        ],
        "Turned away by reason (busy, rate, body, time), and refused for their key, by its reason.",
    ),
    Panel(
        "Connections closed",
        "cps",
        [per_second("segmentql_connections_closed_total", "reason")],
        "HTTP connections that the server rejected or closed early.",
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
        "Keys that one statement answers, p50",
        "short",
        [quantile(0.5, "segmentql_batch_keys", "loader")],
        "Requests that ask at the same moment share a statement.",
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
        "Transactions run again",
        "ops",
        [("sum(rate(segmentql_transaction_retries_total[$__rate_interval]))", "retries")],
    ),
    Panel(
        "What answers",
        "short",
        [
            asked("segmentql_dependency_up", "dependency"),
            ("sum by (version) (segmentql_build_info)", "APIs of {{version}}"),
        ],
        "1 while it answers.",
    ),
)

WORK = (
    Panel(
        "Messages waiting",
        "short",
        [
            ("max by (queue, state) (segmentql_queue_messages)", "{{queue}} {{state}}"),
        ],
        "ready to be taken, delayed, or dead after the last retry.",
    ),
    Panel("Jobs begun", "ops", [per_second("segmentql_actor_starts_total", "actor")]),
    Panel(
        "Jobs that failed, and their retries",
        "ops",
        [
            (
                "sum by (actor, outcome) (rate(segmentql_actor_runs_total[$__rate_interval]))",
                "{{actor}} {{outcome}}",
            ),
            (
                "sum by (actor) (rate(segmentql_actor_retries_total[$__rate_interval]))",
                "{{actor}} again",
            ),
        ],
    ),
    Panel("Job duration, p99", "s", [quantile(0.99, "segmentql_actor_duration_seconds", "actor")]),
    Panel(
        "Messages that Redis did not take",
        "ops",
        [per_second("segmentql_messages_lost_total", "job")],
        "The scheduler finds their work.",
    ),
    Panel(
        "Schedulers that act, and looks that failed",
        "short",
        [
            ("sum(segmentql_scheduler_leader)", "act (1)"),
            per_second("segmentql_periodic_check_failures_total", "check"),
        ],
    ),
    Panel(
        "Ends that are not on record yet",
        "short",
        [asked("segmentql_memberships_due", "cause")],
        "Reads do not show them any more.",
    ),
    Panel(
        "The oldest of them",
        "s",
        [asked("segmentql_memberships_due_oldest_seconds", legend="oldest")],
    ),
    Panel("Rollouts by status", "short", [asked("segmentql_rollouts", "status")]),
    Panel(
        "Progress of passes",
        "percentunit",
        [asked("segmentql_rollout_progress_ratio", "slug")],
        "Of the 20 rollouts under way that began last.",
    ),
    Panel("Reports kept", "short", [asked("segmentql_reports_stored", "status")]),
    Panel(
        "Reports that are over",
        "ops",
        [per_second("segmentql_reports_total", "outcome")],
    ),
    Panel(
        "From asking for a report until it is ready",
        "s",
        [
            quantile(0.5, "segmentql_report_duration_seconds"),
            quantile(0.99, "segmentql_report_duration_seconds"),
            asked("segmentql_report_oldest_waiting_seconds", legend="oldest that waits"),
        ],
    ),
)

DATA = (
    Panel("Users", "short", [asked("segmentql_users", legend="users")]),
    Panel("Segments", "short", [asked("segmentql_segments", legend="segments")]),
    Panel("Memberships", "short", [asked("segmentql_memberships", legend="memberships")]),
    Panel("Joins by cause", "ops", [per_second("segmentql_joins_total", "cause")]),
    Panel("Leaves by cause", "ops", [per_second("segmentql_leaves_total", "cause")]),
    Panel(
        "Joins less leaves, in an hour",
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
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
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


def written(name: str) -> str:
    title, panels = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, panels), indent=2) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(written(name))
