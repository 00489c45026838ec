"""When a change happens: read from PostgreSQL's clock, once, after the change's locks are held.

`now()` is the transaction's start: a change that waited for a lock would be dated before the one
it undoes. The triggers that write history take the moment, the cause and the actor from here.
"""

from typing import Final


def _change(of: str, cause: str) -> str:
    return f"""
change AS MATERIALIZED (
    SELECT
        at,
        set_config('segmentql.moment', at::text, true),
        set_config('segmentql.cause', {cause}, true),
        set_config('segmentql.actor', coalesce(CAST(:actor AS text), ''), true)
    FROM (
        -- Later than all that history holds of it, even if the clock was set back.
        SELECT greatest(clock_timestamp(), (
            SELECT max(at) + interval '1 microsecond'
            FROM history
            WHERE {of} AND at >= now()
        )) AS at
    ) AS moment
)"""


CHANGE_OF_USER: Final = _change("user_id = :user_id", "CAST(:cause AS text)")
"""A CTE of one row, `change.at`, for a statement that changes the memberships of `:user_id`.

Takes `:user_id`, `:cause` and `:actor`. Use it in a statement of its own, after the one that took
the locks: a statement sees what was committed when it began.
"""

CHANGE_BY_ROLLOUT: Final = _change("segment_id = :segment_id", "'ROLLOUT'")
"""The same for a statement that changes memberships of `:segment_id` for its rollout."""
