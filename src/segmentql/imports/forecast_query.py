"""The statements of the forecast of an import."""

from typing import Final

from sqlalchemy import TextClause, text

from segmentql.imports.file_format import Identity
from segmentql.memberships.reads import NOT_EXPIRED
from segmentql.rollouts.finished_sample import IN_FINISHED_SAMPLE

KEPT_REJECTIONS: Final = 100
"""The number of rejected rows that an import keeps for `rejections`."""

WAIT_DAYS: Final = 7
"""How long VALIDATED and HELD imports wait for `applyImport`."""

MANY_ROWS: Final = 20_000
"""The number of rows from which on reading users by an index is slower than a scan of all users."""

# Disable parallel workers to leave CPU for requests.
SETTINGS = text("""
SELECT set_config('max_parallel_workers_per_gather', '0', true),
    set_config('work_mem', '64MB', true)
""")

# The statistics of the staged rows may be from before they were staged. The planner would join them
# with each other by a nested loop, which reads all rows for each row.
SET_NESTED_LOOPS = text("SELECT set_config('enable_nestloop', :value, true)")

MARK_DUPLICATES: Final = {
    identity: text(f"""
    UPDATE import_rows r SET outcome = 'DUPLICATE'
    FROM (
        SELECT line, row_number() OVER (PARTITION BY {identity} ORDER BY line) AS repetition
        FROM import_rows WHERE import_id = :import_id AND outcome IS NULL
    ) AS numbered
    WHERE r.import_id = :import_id AND r.line = numbered.line AND numbered.repetition > 1
    """)
    for identity in ("user_id", "user_key")
}

_NEW_END: Final = """
coalesce(CAST(:expires_at AS timestamptz), now() + CAST(:ttl AS interval))
"""

# The outcome of adding the user to the list: `u` is the stored user, `m` the active membership.
_ADD_OUTCOME: Final = f"""
CASE
    WHEN u.id IS NULL THEN CASE WHEN CAST(:on_unknown_user AS text) = 'STORE'
        THEN 'JOINED' ELSE 'UNKNOWN_USER' END
    WHEN m.id IS NULL THEN CASE WHEN e.user_id IS NOT NULL AND CAST(:on_excluded AS text) = 'SKIP'
        THEN 'EXCLUDED' ELSE 'JOINED' END
    WHEN CAST(:on_existing AS text) = 'KEEP' THEN 'ALREADY_IN'
    WHEN CAST(:on_existing AS text) = 'EXTEND'
        AND (m.expires_at IS NULL OR m.expires_at >= {_NEW_END}) THEN 'ALREADY_IN'
    WHEN m.expires_at IS NOT DISTINCT FROM {_NEW_END} THEN 'ALREADY_IN'
    ELSE 'END_CHANGED' END
"""

_REMOVE_OUTCOME: Final = f"""
CASE
    WHEN u.id IS NULL THEN 'UNKNOWN_USER'
    WHEN m.id IS NULL THEN 'NOT_IN'
    WHEN NOT CAST(:exclude AS boolean) AND {IN_FINISHED_SAMPLE} THEN 'ALREADY_IN'
    ELSE 'LEFT' END
"""


def _list_of_users(identity: Identity, outcome: str) -> TextClause:
    """Return the statement that stores the users of the list with their expected outcomes."""
    if identity is Identity.ID:
        user_id, same_user = "r.user_id", "u.id = r.user_id"
    else:
        user_id, same_user = "u.id", "u.key = r.user_key"
    return text(f"""
INSERT INTO import_users (import_id, number, line, user_id, user_key, outcome)
SELECT :import_id, row_number() OVER (ORDER BY {user_id}, r.user_key), r.line, {user_id},
    r.user_key, CAST({outcome} AS row_outcome)
FROM import_rows r
LEFT JOIN users u ON {same_user}
LEFT JOIN memberships m ON m.segment_id = :segment_id AND m.user_id = u.id AND {NOT_EXPIRED}
LEFT JOIN exclusions e ON e.segment_id = :segment_id AND e.user_id = u.id
WHERE r.import_id = :import_id AND r.outcome IS NULL
""")


LIST_USERS: Final = {
    (identity, removes): _list_of_users(identity, _REMOVE_OUTCOME if removes else _ADD_OUTCOME)
    for identity in Identity
    for removes in (False, True)
}

# The members by hand who are not in the list. Those in the finished sample of the rollout stay.
PLAN_REMOVALS = text(f"""
INSERT INTO import_users
    (import_id, number, user_id, membership_id, membership_updated_at, outcome)
SELECT :import_id, :listed_users + row_number() OVER (ORDER BY m.user_id), m.user_id, m.id,
    m.updated_at,
    CAST(CASE WHEN {IN_FINISHED_SAMPLE} THEN 'ALREADY_IN' ELSE 'LEFT' END AS row_outcome)
FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.segment_id = :segment_id AND m.cause = 'MANUAL' AND {NOT_EXPIRED}
  AND NOT EXISTS (
    SELECT FROM import_users i
    WHERE i.import_id = :import_id AND i.user_id = m.user_id)
""")

COUNTS = text("""
SELECT outcome, count(*) AS rows FROM import_rows
WHERE import_id = :import_id AND outcome IS NOT NULL GROUP BY outcome
""")

EXPECTED_COUNTS = text("""
SELECT line IS NULL AS is_removal, outcome, count(*) AS users FROM import_users
WHERE import_id = :import_id GROUP BY 1, 2
""")

REJECTIONS = text(f"""
SELECT line, value, CAST(outcome AS text) AS outcome, detail FROM import_rows
WHERE import_id = :import_id AND outcome IN ('MALFORMED', 'OUT_OF_RANGE')
ORDER BY line LIMIT {KEPT_REJECTIONS}
""")

ACTIVE_MEMBERS = text(f"""
SELECT count(*) FROM memberships m WHERE m.segment_id = :segment_id AND {NOT_EXPIRED}
""")

# The lock of the erasure of keys, see `reports/key_erasure.py`. An erasure before it is visible to
# the next statement, and an erasure after it sees the users of the list.
LOCK_ERASURES = text("SELECT pg_advisory_xact_lock_shared(7004, 0)")

DROP_ERASED_KEYS = text("""
UPDATE import_users u SET user_key = NULL, user_id = NULL
FROM import_rows r
WHERE u.import_id = :import_id AND u.user_key IS NOT NULL
  AND r.import_id = u.import_id AND r.line = u.line AND r.user_key IS NULL
""")

COUNT_OPEN_ROWS = text("""
SELECT count(*) FROM import_rows WHERE import_id = :import_id AND outcome IS NULL
""")

STORE = text(f"""
UPDATE imports SET
    status = CAST(:status AS import_status), failure = CAST(:failure AS text),
    row_count = :row_count, listed_users = :listed_users, total_users = :total_users,
    applied_users = 0, attempts = 0, file_key = NULL, removals = :removals,
    counts = CAST(CAST(:counts AS text) AS jsonb),
    rejections = CAST(CAST(:rejections AS text) AS jsonb),
    finished_at = CASE WHEN :status = 'REFUSED' THEN clock_timestamp() END,
    next_attempt_at = CASE WHEN :status = 'APPLYING' THEN clock_timestamp() END,
    deadline_at = CASE WHEN :status IN ('VALIDATED', 'HELD')
        THEN clock_timestamp() + make_interval(days => {WAIT_DAYS}) END
WHERE id = :import_id
""")
