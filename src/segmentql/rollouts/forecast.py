"""The forecast of a dry run: how many users a plan or a withdrawal adds and removes.

The forecast counts the current members that a pass removes, and the users who join until the last
pass, as if the stages started one after the other without a pause. So the number of members after
the last pass is the current number without `leaving`, plus `joining`. A user who leaves and joins
again counts in both.

The transaction of the dry run has ended by then. The forecast is one statement that locks no row,
so it blocks no other transaction.
"""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final
from weakref import WeakValueDictionary

from sqlalchemy import TextClause, text

from segmentql.adapters.database import Database
from segmentql.adapters.sessions import ReadSession
from segmentql.errors import TimedOut
from segmentql.memberships.reads import NOT_EXPIRED
from segmentql.rollouts.reads import rollout_counts
from segmentql.rollouts.records import RolloutRecord
from segmentql.rollouts.sampling import BOUND_QUERY, DISABLE_PARALLEL_QUERY, sample_size
from segmentql.tables import RolloutState

FORECAST_TIMEOUT_SECONDS: Final = 10
"""The default time limit of a forecast, in seconds.

A forecast takes about a second per million users, and twice as long if the plan lowers the percent,
but not to 0, and raises it later.
"""

CONCURRENT_FORECASTS: Final = 2
"""The maximum number of concurrent forecasts of a process, each with a connection of its own.

One API key has at most one of them.
"""

_MAX_INSERT_SEQ: Final = 2**63 - 1


def _count_changes(lowest_bound: str) -> TextClause:
    """Return the statement of a forecast.

    Members and excluded users are stored, and no user is both. So the users of the last sample who
    do not join are counted without another scan of all users.

    Args:
        lowest_bound: The query of the bound of the lowest sample.
    """
    return text(f"""
WITH bound AS MATERIALIZED ({BOUND_QUERY}),
lowest AS MATERIALIZED ({lowest_bound}),
hashed AS MATERIALIZED (
    SELECT m.user_id, rollout_hash_v1(:segment_id, m.user_id) AS hash,
        m.cause = 'ROLLOUT' AND :removes_members AS is_removable
    FROM memberships m WHERE m.segment_id = :segment_id AND {NOT_EXPIRED}
), member AS MATERIALIZED (
    SELECT (hash, user_id) <= (bound.bound_hash, bound.bound_user_id) AS in_last_sample,
        is_removable AND (hash, user_id) > (lowest.bound_hash, lowest.bound_user_id) AS leaves
    FROM hashed, bound, lowest
)
SELECT (SELECT users_total FROM bound) AS users_total,
    (SELECT count(*) FROM member WHERE leaves) AS leaving,
    (SELECT count(*) FROM member WHERE in_last_sample AND NOT leaves) AS staying_in_sample,
    (SELECT count(*) FROM exclusions e, bound
        WHERE e.segment_id = :segment_id
          AND (rollout_hash_v1(:segment_id, e.user_id), e.user_id) <= (bound_hash, bound_user_id)
    ) AS excluded_in_sample
""")


_LOWEST_IS_LAST = _count_changes("SELECT bound_hash, bound_user_id FROM bound")

_LOWEST_IS_EMPTY = _count_changes(
    "SELECT CAST(-1 AS bigint) AS bound_hash, CAST(0 AS bigint) AS bound_user_id"
)

_LOWEST_DIFFERS = _count_changes(BOUND_QUERY.replace(":percent", ":lowest_percent"))


@dataclass(frozen=True, slots=True)
class PassSummary:
    """The passes of a plan or a withdrawal, as far as a forecast needs them."""

    segment_id: int
    last_percent: Decimal
    lowest_percent: Decimal | None
    """The lowest percent of the passes that remove members; None if no pass removes any."""


@dataclass(frozen=True, slots=True)
class RolloutForecast:
    """The numbers of users that join and leave by a plan or a withdrawal."""

    joining: int
    leaving: int


def summarize_passes(rollout: RolloutRecord) -> PassSummary | None:
    """Return what a forecast needs of a rollout on which no worker has worked since it was changed.

    A pass removes members unless its percent is above the previous one. If every stage raises the
    percent, no member leaves, not even one outside the last sample, who joined when stored or is
    outside because other users were deleted. A sample contains every smaller sample. So a member
    leaves if the smallest sample of the passes that remove members does not contain the member.

    Returns:
        The summary; None if the rollout is cancelled and its members stay.
    """
    if rollout.state == RolloutState.WITHDRAWING:
        return PassSummary(rollout.segment_id, Decimal(0), Decimal(0))
    if rollout.state == RolloutState.CANCELLED:
        return None
    percents = [rollout.highest_percent(up_to_stage=rollout.current - 1)]
    if rollout.current == 0 and rollout.work_due:  # a pass before the first stage
        percents.append(Decimal(0))
    percents += rollout.percents[max(rollout.current - 1, 0) :]
    removing = [percent for previous, percent in pairwise(percents) if percent <= previous]
    return PassSummary(rollout.segment_id, percents[-1], min(removing, default=None))


async def count_changes(session: ReadSession, passes: PassSummary) -> RolloutForecast:
    """Count the users who join and leave until the end of the last pass, if nothing else changes.

    A member who leaves in one pass and joins again in a later one is counted as both. A user who
    joins in one pass and leaves in a later one is not counted.
    """
    if passes.last_percent == 0:
        counts = (await rollout_counts(session, [passes.segment_id]))[passes.segment_id]
        return RolloutForecast(joining=0, leaving=counts.enrolled)
    await session.execute(DISABLE_PARALLEL_QUERY)
    values = {
        "segment_id": passes.segment_id,
        "percent": passes.last_percent,
        "last_insert_seq": _MAX_INSERT_SEQ,
        "removes_members": passes.lowest_percent is not None,
    }
    statement = _LOWEST_IS_LAST
    if passes.lowest_percent == 0:
        statement = _LOWEST_IS_EMPTY
    elif passes.lowest_percent not in {None, passes.last_percent}:
        statement = _LOWEST_DIFFERS
        values["lowest_percent"] = passes.lowest_percent
    found = (await session.execute(statement, values)).one()
    size = sample_size(found.users_total, passes.last_percent)
    return RolloutForecast(
        joining=size - found.staying_in_sample - found.excluded_in_sample, leaving=found.leaving
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
        self._key_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def forecast(
        self, rollout: RolloutRecord, *, key_id: str | None = None
    ) -> RolloutForecast | None:
        """Return the forecast of a rollout that a dry run has changed.

        Args:
            rollout: The rollout as the dry run has changed it.
            key_id: The API key of the caller, which has one running forecast at most; None if
                authentication is off.

        Returns:
            The forecast; None if it takes longer than the time limit.

        Raises:
            Unavailable: The database cannot be used.
        """
        passes = summarize_passes(rollout)
        if passes is None:
            return RolloutForecast(joining=0, leaving=0)
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._key_lock(key_id),
                self._slots,
                self._database.long_read(seconds=self._seconds) as session,
            ):
                return await count_changes(session, passes)
        except (TimedOut, TimeoutError):
            return None

    def _key_lock(self, key_id: str | None) -> AbstractAsyncContextManager[object]:
        """Return the lock of an API key, which exists while a forecast of the key holds it."""
        if key_id is None:
            return nullcontext()
        return self._key_locks.setdefault(key_id, asyncio.Lock())
