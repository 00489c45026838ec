"""The panels of the dashboard "SegmentQL: data": users, segments, memberships."""

from panels import Panel, gauge, per_second

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
