"""The timestamp of a mutation, read once from PostgreSQL's clock after its locks are held.

`now()` is the start of the transaction. A mutation that waited for a lock would have an earlier
timestamp than the mutation before it. The triggers that write history read the timestamp, the cause
and the actor from the settings that these expressions set.
"""

from typing import Final


def _change(scope: str, cause: str, *, settings: str = "") -> str:
    return f"""
change AS MATERIALIZED (
    SELECT
        at,
        set_config('segmentql.moment', at::text, true),
        set_config('segmentql.cause', {cause}, true),
        set_config('segmentql.actor', coalesce(CAST(:actor AS text), ''), true),
        set_config('segmentql.api_key_id', coalesce(CAST(:api_key_id AS text), ''), true){settings}
    FROM (
        -- Later than every history entry of the scope, even if the clock was set back.
        SELECT greatest(clock_timestamp(), (
            SELECT max(at) + interval '1 microsecond'
            FROM history
            WHERE {scope} AND at >= now()
        )) AS at
    ) AS moment
)"""


CHANGE_OF_USER: Final = _change("user_id = :user_id", "CAST(:cause AS text)")
"""A CTE with one row, `change.at`, for a statement that changes memberships of `:user_id`.

Its parameters are `:user_id`, `:cause`, `:actor` and `:api_key_id`. It must be in a separate
statement after the one that took the locks, because a statement sees only what was committed before
it started.
"""

CHANGE_BY_ROLLOUT: Final = _change("segment_id = :segment_id", "'ROLLOUT'")
"""The same CTE for a statement that changes memberships of `:segment_id` by its rollout."""

CHANGE_OF_USERS: Final = _change(
    "user_id = ANY(CAST(:user_ids AS bigint[]))",
    "'MANUAL'",
    settings=""",
        set_config('segmentql.import_id', coalesce(CAST(CAST(:import_id AS bigint) AS text), ''),
            true)""",
)
"""The same CTE for a statement that changes memberships of all `:user_ids` by hand or by an import.

Its parameters are `:user_ids`, `:actor`, `:api_key_id` and `:import_id`.
"""
