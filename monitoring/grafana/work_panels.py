"""The panels of the dashboard "SegmentQL: work": jobs, leaves, the feed, rollouts and files."""

from panels import Panel, gauge, per_second, quantile

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
