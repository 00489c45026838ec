"""Random joins and leaves, for tests of properties."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hypothesis import strategies as st

from segmentql.tables import Cause
from tests.back_dating import insert_membership, insert_past_membership
from tests.conftest import Sql

SLUGS = ("A", "B")
USERS = range(1, 5)


@dataclass(frozen=True)
class Timeline:
    """The joins and leaves of one user and segment, in turn, at distinct moments."""

    user_id: int
    slug: str
    moments: tuple[datetime, ...]
    expires: bool
    """Whether the last leave is the unrecorded end of a TTL; otherwise it is recorded."""


def timelines(moments: Sequence[datetime], *, max_size: int) -> st.SearchStrategy[list[Timeline]]:
    """Return a strategy of timelines of different users and segments.

    Args:
        moments: The possible times of joins and leaves.
        max_size: The maximum number of joins and leaves of one timeline.
    """
    one = st.builds(
        Timeline,
        st.sampled_from(USERS),
        st.sampled_from(SLUGS),
        st.sets(st.sampled_from(moments), max_size=max_size).map(
            lambda found: tuple(sorted(found))
        ),
        st.booleans(),
    )
    return st.lists(one, max_size=8, unique_by=lambda timeline: (timeline.user_id, timeline.slug))


async def insert_timeline(
    sql: Sql, timeline: Timeline, *, until: datetime | None, cause: Cause = Cause.MANUAL
) -> None:
    """Store the joins and leaves before `until`.

    Args:
        sql: A connection.
        timeline: The joins and leaves.
        until: The end; None for all.
        cause: The cause of the membership that does not end before `until`.
    """
    moments = [at for at in timeline.moments if until is None or at < until]
    while len(moments) > (2 if timeline.expires else 1):
        joined_at, left_at, *moments = moments
        await insert_past_membership(
            sql, timeline.user_id, timeline.slug, joined_at=joined_at, left_at=left_at
        )
    if moments:
        joined_at, *ends = moments
        await insert_membership(
            sql,
            timeline.user_id,
            timeline.slug,
            joined_at=joined_at,
            expires_at=ends[0] if ends else None,
            cause=cause,
        )
