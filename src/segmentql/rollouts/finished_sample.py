"""The sample of the last finished pass of a rollout, for changes that are not a rollout's."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text

from segmentql.adapters.database import ReadSession, WriteSession

IN_FINISHED_SAMPLE: Final = """(
    u.insert_seq <= :sample_insert_seq
    AND (rollout_hash_v1(:segment_id, u.id), u.id)
        <= (CAST(:sample_bound_hash AS bigint), CAST(:sample_bound_user_id AS bigint)))
"""
"""SQL condition: the user `u` is in the sample whose `parameters` the statement has.

The statement also has the parameter `:segment_id`.
"""

_READ = text("""
SELECT p.last_insert_seq, p.bound_hash, p.bound_user_id, r.expires_at, r.actor, r.api_key_id
FROM rollouts r
CROSS JOIN LATERAL (
    SELECT * FROM rollout_passes
    WHERE rollout_passes.segment_id = r.segment_id AND finished_at IS NOT NULL
    ORDER BY pass_number DESC LIMIT 1
) AS p
WHERE r.segment_id = :segment_id AND r.state IN ('ACTIVE', 'PAUSED') AND NOT p.is_withdrawal
  AND (r.expires_at IS NULL OR r.expires_at > clock_timestamp())
""")


@dataclass(frozen=True, slots=True)
class FinishedSample:
    """The sample of a pass: users up to `last_insert_seq` whose (hash, id) is within the bound."""

    last_insert_seq: int
    bound_hash: int
    bound_user_id: int
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
        }


NO_SAMPLE: Final = FinishedSample(0, -1, 0, None, None, None)
"""A sample without users."""


async def read_finished_sample(
    session: ReadSession | WriteSession, segment_id: int
) -> FinishedSample:
    """Return the sample of the last finished pass of the segment's rollout.

    If the segment has no rollout, or the rollout is cancelled, withdrawn, failed or expired, or has
    finished no pass, the sample is empty.
    """
    row = (await session.execute(_READ, {"segment_id": segment_id})).one_or_none()
    return NO_SAMPLE if row is None else FinishedSample(*row)
