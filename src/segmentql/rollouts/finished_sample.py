"""The sample of the last finished pass of a rollout, for changes that are not a rollout's.

A pass in progress has decided about the users up to its cursor, and does not return to them. So its
own sample counts for these users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession

IN_FINISHED_SAMPLE: Final = """(
    CASE WHEN u.id <= :sample_cursor_user_id
    THEN u.insert_seq <= :next_insert_seq
        AND (rollout_hash_v1(:segment_id, u.id), u.id)
            <= (CAST(:next_bound_hash AS bigint), CAST(:next_bound_user_id AS bigint))
    ELSE u.insert_seq <= :sample_insert_seq
        AND (rollout_hash_v1(:segment_id, u.id), u.id)
            <= (CAST(:sample_bound_hash AS bigint), CAST(:sample_bound_user_id AS bigint)) END)
"""
"""SQL condition: the user `u` is in the sample whose `parameters` the statement has.

The statement also has the parameter `:segment_id`.
"""

# The defaults are samples without users.
_READ = text("""
SELECT coalesce(finished.last_insert_seq, 0) AS last_insert_seq,
    coalesce(finished.bound_hash, -1) AS bound_hash,
    coalesce(finished.bound_user_id, 0) AS bound_user_id,
    coalesce(working.cursor_user_id, 0) AS cursor_user_id,
    coalesce(working.last_insert_seq, 0) AS next_insert_seq,
    coalesce(working.bound_hash, -1) AS next_bound_hash,
    coalesce(working.bound_user_id, 0) AS next_bound_user_id,
    r.expires_at, r.actor, r.api_key_id
FROM rollouts r
LEFT JOIN LATERAL (
    SELECT * FROM rollout_passes
    WHERE rollout_passes.segment_id = r.segment_id AND finished_at IS NOT NULL
    ORDER BY pass_number DESC LIMIT 1
) AS finished ON NOT finished.is_withdrawal
LEFT JOIN rollouts working ON working.segment_id = r.segment_id AND working.phase = 'WORKING'
WHERE r.segment_id = :segment_id AND r.state IN ('ACTIVE', 'PAUSED')
  AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp())
""")


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """The users of the last finished pass, and of the pass in progress up to its cursor.

    The sample of a pass has the users up to its `insert_seq` whose (hash, id) is within the bound.
    """

    last_insert_seq: int
    bound_hash: int
    bound_user_id: int
    cursor_user_id: int
    """The last user that the pass in progress has processed; 0 if there is none."""
    next_insert_seq: int
    next_bound_hash: int
    next_bound_user_id: int
    expires_at: datetime | None
    """When the memberships of the rollout end."""
    actor: str | None
    api_key_id: str | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of `IN_FINISHED_SAMPLE`."""
        return {
            "sample_insert_seq": self.last_insert_seq,
            "sample_bound_hash": self.bound_hash,
            "sample_bound_user_id": self.bound_user_id,
            "sample_cursor_user_id": self.cursor_user_id,
            "next_insert_seq": self.next_insert_seq,
            "next_bound_hash": self.next_bound_hash,
            "next_bound_user_id": self.next_bound_user_id,
        }


NO_SAMPLE: Final = FinishedSample(0, -1, 0, 0, 0, -1, 0, None, None, None)
"""A sample without users."""


async def read_finished_sample(
    session: ReadSession | WriteSession, segment_id: int
) -> FinishedSample:
    """Return the sample of the last finished pass of the segment's rollout.

    If the segment has no rollout, or the rollout is cancelled, withdrawn, failed or expired, the
    sample is empty.
    """
    row = (await session.execute(_READ, {"segment_id": segment_id})).one_or_none()
    return NO_SAMPLE if row is None else FinishedSample(*row)
