"""Checks of the times in a request for an import."""

from datetime import datetime

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import HistoryDropped, InvalidInput, MutationRejected
from segmentql.history.retention import check_history_since
from segmentql.memberships.expiry import check_expiry

_AS_OF = ("source", "segments", "asOf")


async def check_times(
    session: ReadSession | WriteSession,
    now: datetime,
    *,
    expires_at: datetime | None,
    as_of: datetime | None,
) -> None:
    """Check the times of a new import.

    Args:
        session: The session.
        now: The time of the database.
        expires_at: The end of the memberships; None if they have none.
        as_of: The time from which the list is computed; None for now.

    Raises:
        MutationRejected: `expires_at` is not in the allowed future, or `as_of` is in the future or
            before the beginning of history.
    """
    if expires_at is not None:
        check_expiry(expires_at - now)
    if as_of is None:
        return
    if as_of > now:
        reason = InvalidInput(_AS_OF, "the time is in the future", "a time up to now")
        raise MutationRejected(reason)
    try:
        await check_history_since(session, as_of)
    except HistoryDropped as error:
        reason = InvalidInput(_AS_OF, "older history was dropped", error.allowed)
        raise MutationRejected(reason) from error
