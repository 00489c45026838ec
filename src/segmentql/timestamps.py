"""The timestamp of a mutation, read once from PostgreSQL's clock after its locks are held.

`now()` is the start of the transaction. A mutation that waited for a lock would have an earlier
timestamp than the mutation before it. The triggers that write history read the timestamp, the cause
and the actor from the settings that these expressions set.

History is in order of time for each user. So a membership that has expired must be in history
before a later change of its user is. A change of memberships therefore writes nothing if one of its
users has such a membership; `memberships/ordered_changes.py` then records the leaves and repeats
the change.
"""

from typing import Final

_CLOCK: Final = "clock_timestamp()"
_CLOCK_OR_TIME_OF_LEAVES: Final = f"coalesce(CAST(:leaves_recorded_at AS timestamptz), {_CLOCK})"


def _settings(cause: str, *others: str) -> str:
    return f"""
        set_config('segmentql.cause', {cause}, true),
        set_config('segmentql.actor', coalesce(CAST(:actor AS text), ''), true),
        set_config('segmentql.api_key_id', coalesce(CAST(:api_key_id AS text), ''), true)
        {"".join(f", {other}" for other in others)}"""


def _change(users: str, *, settings: str = "NULL", clock: str = _CLOCK, condition: str = "") -> str:
    """Return the CTE `change`, which has one row if the condition is met.

    Args:
        users: The operator and the value to compare `user_id` with.
        settings: The expressions that set the settings of the triggers, except the time.
        clock: The expression of the earliest time of the change.
        condition: The WHERE clause, which reads `at`.
    """
    return f"""
change AS MATERIALIZED (
    SELECT
        at,
        set_config('segmentql.moment', at::text, true),
        {settings}
    FROM (
        -- Later than every history entry of the users, even if the clock was set back.
        SELECT greatest({clock}, (
            SELECT max(at) + interval '1 microsecond'
            FROM history
            WHERE user_id {users} AND at >= now()
        )) AS at
    ) AS moment
    {condition}
)"""


def _ordered_change(users: str, *, settings: str) -> str:
    """Return the CTE `change`, which is empty if an expired membership is not in history yet.

    The leaves of a deleted segment are excepted. The first condition is cheap: it reads one entry
    of an index, and is false while workers record all leaves in time.
    """
    return _change(
        users,
        settings=settings,
        clock=_CLOCK_OR_TIME_OF_LEAVES,
        condition=f"""
    WHERE CASE WHEN (SELECT min(expires_at) FROM memberships) <= moment.at
        THEN NOT EXISTS (
            SELECT FROM memberships due JOIN segments ON segments.id = due.segment_id
            WHERE due.user_id {users} AND due.expires_at <= moment.at
              AND due.expires_at <= coalesce(segments.deleted_at, 'infinity'))
        ELSE true END""",
    )


_ONE_USER: Final = "= :user_id"
# A subquery, because the planner would take 70 ms to estimate the matches of 20,000 known values.
_USERS: Final = "= ANY(ARRAY(SELECT unnest(CAST(:user_ids AS bigint[]))))"

CHANGE_OF_USER: Final = _ordered_change(_ONE_USER, settings=_settings("'MANUAL'"))
"""A CTE with one row, `change.at`, for a statement that changes memberships of `:user_id` by hand.

Its parameters are `:user_id`, `:actor`, `:api_key_id` and `:leaves_recorded_at`. It is empty if a
membership of the user has expired and is not in history yet. Execute the statement with
`change_in_order`. It must be in a separate statement after the one that took the locks, because a
statement sees only what was committed before it started.
"""

CHANGE_OF_USERS: Final = _ordered_change(
    _USERS,
    settings=_settings(
        "'MANUAL'",
        """set_config('segmentql.import_id',
            coalesce(CAST(CAST(:import_id AS bigint) AS text), ''), true)""",
    ),
)
"""The same CTE for a statement that changes memberships of all `:user_ids` by hand or by an import.

Its parameters are `:user_ids`, `:actor`, `:api_key_id`, `:import_id` and `:leaves_recorded_at`.
"""

CHANGE_BY_ROLLOUT: Final = _ordered_change(_USERS, settings=_settings("'ROLLOUT'"))
"""The same CTE for a statement that changes memberships of all `:user_ids` by a rollout."""

DELETION_OF_USER: Final = _change(_ONE_USER, settings=_settings("'USER_DELETED'"))
"""The CTE for the statement that deletes `:user_id` with all memberships.

It is never empty, because one DELETE records expired memberships and the others in order of time.
"""

TIME_OF_LEAVES: Final = _change(_USERS)
"""The CTE for the statement that records the expired memberships of all `:user_ids`."""

TIME_OF_EXPIRY: Final = """
change AS MATERIALIZED (
    SELECT at, set_config('segmentql.moment', at::text, true)
    FROM (SELECT clock_timestamp() AS at) AS moment
)"""
"""The same CTE for workers. It does not read history, which may have many partitions.

If the clock was set back, the newest entry is later. Then history has every membership that has
expired by the clock.
"""
