"""The forecast of a dry run: how many users a plan or a withdrawal adds and removes.

The forecast compares the current members with those after the last pass, as if every stage started
now. The transaction of the dry run has ended by then. The forecast is one statement that locks no
row, so it blocks no other transaction.
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import TimedOut
from segmentql.memberships.reads import NOT_EXPIRED
from segmentql.rollouts.reads import rollout_counts
from segmentql.rollouts.records import RolloutRecord
from segmentql.rollouts.sampling import BOUND_QUERY, DISABLE_PARALLEL_QUERY, sample_size
from segmentql.tables import RolloutState

FORECAST_TIMEOUT_SECONDS: Final = 10
"""The default time limit of a forecast, which takes about a second per million users."""

CONCURRENT_FORECASTS: Final = 2
"""The maximum number of concurrent forecasts of a process, each with a connection of its own."""

_MAX_INSERT_SEQ: Final = 2**63 - 1

# Members and excluded users are stored, and no user is both. So the users of the sample who do not
# join are counted without another scan of all users.
_COUNT_CHANGES = text(f"""
WITH bound AS MATERIALIZED ({BOUND_QUERY}),
member AS MATERIALIZED (
    SELECT m.user_id, m.cause = 'ROLLOUT' AS added_by_rollout,
        (rollout_hash_v1(:segment_id, m.user_id), m.user_id) <= (bound_hash, bound_user_id)
            AS in_sample
    FROM memberships m, bound WHERE m.segment_id = :segment_id AND {NOT_EXPIRED}
)
SELECT (SELECT users_total FROM bound) AS users_total,
    (SELECT count(*) FROM member WHERE in_sample) AS members_in_sample,
    (SELECT count(*) FROM member WHERE NOT in_sample AND added_by_rollout) AS members_beyond_sample,
    (SELECT count(*) FROM exclusions e, bound
        WHERE e.segment_id = :segment_id
          AND (rollout_hash_v1(:segment_id, e.user_id), e.user_id) <= (bound_hash, bound_user_id)
    ) AS excluded_in_sample
""")


@dataclass(frozen=True, slots=True)
class LastPass:
    """The last pass of a plan or a withdrawal, as far as a forecast needs it."""

    segment_id: int
    percent: Decimal
    removes_members: bool
    """Whether members that the rollout added and that are outside the last sample leave."""


@dataclass(frozen=True, slots=True)
class RolloutForecast:
    """The numbers of users that join and leave by a plan or a withdrawal."""

    joining: int
    leaving: int


def last_pass(rollout: RolloutRecord) -> LastPass | None:
    """Return the last pass of a rollout on which no worker has worked since it was changed.

    A pass removes members unless its percent is above the previous one. If every stage raises the
    percent, no member leaves, not even one outside the last sample, who joined when stored or is
    outside because other users were deleted.

    Returns:
        The pass; None if the rollout is cancelled and its members stay.
    """
    if rollout.state == RolloutState.WITHDRAWING:
        return LastPass(rollout.segment_id, Decimal(0), removes_members=True)
    if rollout.state == RolloutState.CANCELLED:
        return None
    percents = [rollout.highest_percent(up_to_stage=rollout.current - 1)]
    if rollout.current == 0 and rollout.work_due:  # a pass before the first stage
        percents.append(Decimal(0))
    percents += rollout.percents[max(rollout.current - 1, 0) :]
    removes_members = any(percent <= previous for previous, percent in pairwise(percents))
    return LastPass(rollout.segment_id, percents[-1], removes_members)


async def count_changes(session: ReadSession, last: LastPass) -> RolloutForecast:
    """Count the users who join and leave until the end of the last pass, if nothing else changes.

    A user who leaves in one pass and joins again in a later one is not counted.
    """
    if last.percent == 0:
        counts = (await rollout_counts(session, [last.segment_id]))[last.segment_id]
        return RolloutForecast(joining=0, leaving=counts.enrolled)
    await session.execute(DISABLE_PARALLEL_QUERY)
    values = {
        "segment_id": last.segment_id,
        "percent": last.percent,
        "last_insert_seq": _MAX_INSERT_SEQ,
    }
    found = (await session.execute(_COUNT_CHANGES, values)).one()
    size = sample_size(found.users_total, last.percent)
    return RolloutForecast(
        joining=size - found.members_in_sample - found.excluded_in_sample,
        leaving=found.members_beyond_sample if last.removes_members else 0,
    )


class RolloutForecaster:
    """Computes the forecasts of a process, for use on one event loop."""

    def __init__(self, database: Database, *, seconds: float = FORECAST_TIMEOUT_SECONDS) -> None:
        """Create the forecaster.

        Args:
            database: The database.
            seconds: The time limit of a forecast, its wait for other forecasts included.
        """
        self._database = database
        self._seconds = seconds
        self._slots = asyncio.Semaphore(CONCURRENT_FORECASTS)

    async def forecast(self, rollout: RolloutRecord) -> RolloutForecast | None:
        """Return the forecast of a rollout that a dry run has changed.

        Returns:
            The forecast; None if it takes longer than the time limit.

        Raises:
            Unavailable: The database cannot be used.
        """
        last = last_pass(rollout)
        if last is None:
            return RolloutForecast(joining=0, leaving=0)
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._slots,
                self._database.long_read(seconds=self._seconds) as session,
            ):
                return await count_changes(session, last)
        except (TimedOut, TimeoutError):
            return None
