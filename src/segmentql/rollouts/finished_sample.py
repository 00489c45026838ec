"""The sample of the last finished pass of a rollout, for changes that are not a rollout's.

A pass in progress has decided about the users up to its cursor, and does not return to them. So its
own sample counts for these users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from segmentql.adapters.sessions import ReadSession, WriteSession

IN_FINISHED_SAMPLE: Final = """(
    CASE WHEN u.id <= :current_cursor_user_id
    THEN u.insert_seq <= :current_insert_seq
        AND (rollout_hash_v1(:segment_id, u.id), u.id)
            <= (CAST(:current_bound_hash AS bigint), CAST(:current_bound_user_id AS bigint))
    ELSE u.insert_seq <= :finished_insert_seq
        AND (rollout_hash_v1(:segment_id, u.id), u.id)
            <= (CAST(:finished_bound_hash AS bigint), CAST(:finished_bound_user_id AS bigint)) END)
"""
"""SQL condition: the user `u` is in the sample whose `parameters` the statement has.

The statement also has the parameter `:segment_id`.
"""

_LOCK = text("SELECT FROM rollouts WHERE segment_id = :segment_id FOR SHARE")

# The defaults are samples without users: no hash is as small as -1.
_READ = text("""
SELECT coalesce(finished.last_insert_seq, 0) AS finished_insert_seq,
    coalesce(finished.bound_hash, -1) AS finished_bound_hash,
    coalesce(finished.bound_user_id, 0) AS finished_bound_user_id,
    coalesce(current_pass.cursor_user_id, 0) AS current_cursor_user_id,
    coalesce(current_pass.last_insert_seq, 0) AS current_insert_seq,
    coalesce(current_pass.bound_hash, -1) AS current_bound_hash,
    coalesce(current_pass.bound_user_id, 0) AS current_bound_user_id,
    r.expires_at, r.actor, r.api_key_id
FROM rollouts r
LEFT JOIN LATERAL (
    SELECT * FROM rollout_passes
    WHERE rollout_passes.segment_id = r.segment_id AND finished_at IS NOT NULL
    ORDER BY pass_number DESC LIMIT 1
) AS finished ON NOT finished.is_withdrawal
LEFT JOIN rollouts current_pass
    ON current_pass.segment_id = r.segment_id AND current_pass.phase = 'WORKING'
WHERE r.segment_id = :segment_id AND r.state IN ('ACTIVE', 'PAUSED')
  AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp())
""")


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """The users of the last finished pass, and of the pass in progress up to its cursor.

    The sample of a pass has the users up to its `insert_seq` whose (hash, id) is within the bound.
    """

    finished_insert_seq: int
    finished_bound_hash: int
    """-1, which is smaller than every hash, if the sample has no users."""
    finished_bound_user_id: int
    current_cursor_user_id: int
    """The last user that the pass in progress has processed; 0 if there is none."""
    current_insert_seq: int
    current_bound_hash: int
    """-1 if no pass is in progress or it has no sample."""
    current_bound_user_id: int
    expires_at: datetime | None
    """When the memberships of the rollout end."""
    actor: str | None
    api_key_id: str | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of `IN_FINISHED_SAMPLE`."""
        return {
            "finished_insert_seq": self.finished_insert_seq,
            "finished_bound_hash": self.finished_bound_hash,
            "finished_bound_user_id": self.finished_bound_user_id,
            "current_cursor_user_id": self.current_cursor_user_id,
            "current_insert_seq": self.current_insert_seq,
            "current_bound_hash": self.current_bound_hash,
            "current_bound_user_id": self.current_bound_user_id,
        }


NO_SAMPLE: Final = FinishedSample(
    finished_insert_seq=0,
    finished_bound_hash=-1,
    finished_bound_user_id=0,
    current_cursor_user_id=0,
    current_insert_seq=0,
    current_bound_hash=-1,
    current_bound_user_id=0,
    expires_at=None,
    actor=None,
    api_key_id=None,
)
"""A sample without users."""


async def lock_finished_sample(session: WriteSession, segment_id: int) -> None:
    """Keep the rollout's passes from processing users until the transaction ends.

    A pass does not return to a user that it has processed. A caller that removes users by the
    sample calls this before it locks the users, in the order of locks of a pass.
    """
    await session.execute(_LOCK, {"segment_id": segment_id})


async def read_finished_sample(
    session: ReadSession | WriteSession, segment_id: int
) -> FinishedSample:
    """Return the sample of the last finished pass of the segment's rollout.

    If the segment has no rollout, or the rollout is cancelled, withdrawn, failed or expired, the
    sample is empty.
    """
    row = (await session.execute(_READ, {"segment_id": segment_id})).one_or_none()
    return NO_SAMPLE if row is None else FinishedSample(**row._mapping)
