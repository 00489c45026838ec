"""What every change that adds members by hand does: the SQL of `onExisting`, and the ends."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from segmentql.adapters.database import WriteSession
from segmentql.adapters.jobs import MAX_DELAY_SECONDS, Message
from segmentql.errors import InvalidInput, MutationRejected
from segmentql.memberships.jobs import EXPIRE_DUE_MEMBERSHIPS
from segmentql.validators import MAX_TTL_SECONDS, TTL_ALLOWED

_EXPIRED: Final = "m.expires_at <= excluded.updated_at"
_BECOMES_MANUAL: Final = f"({_EXPIRED} OR m.cause <> 'MANUAL')"
_NEW_END: Final = f"""
CASE WHEN {_EXPIRED} OR CAST(:on_existing AS text) = 'REPLACE' THEN excluded.expires_at
     WHEN m.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
     ELSE greatest(m.expires_at, excluded.expires_at) END
"""

ON_EXISTING_MEMBERSHIP: Final = f"""
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        -- An expired membership becomes a new one with a new id. The trigger then records both the
        -- leave at the old end and the join.
        id = CASE WHEN {_EXPIRED} THEN excluded.id ELSE m.id END,
        joined_at = CASE WHEN {_EXPIRED}
            THEN greatest(excluded.joined_at, m.expires_at + interval '1 microsecond')
            ELSE m.joined_at END,
        updated_at = excluded.updated_at,
        expires_at = {_NEW_END},
        cause = 'MANUAL',
        actor = CASE WHEN {_BECOMES_MANUAL} THEN excluded.actor ELSE m.actor END,
        api_key_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.api_key_id ELSE m.api_key_id END,
        import_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.import_id ELSE m.import_id END
    WHERE {_EXPIRED} OR CAST(:on_existing AS text) <> 'KEEP'
        AND (m.cause <> 'MANUAL' OR m.expires_at IS DISTINCT FROM {_NEW_END})
"""
"""The end of `INSERT INTO memberships AS m`: it applies `:on_existing` to existing memberships.

A returned row was inserted or updated. A membership that stays as it is is not returned.
"""


def check_expiry(remaining: timedelta) -> None:
    """Check the time until the requested end of memberships.

    Raises:
        MutationRejected: It is less than a second, or more than `MAX_TTL_SECONDS`.
    """
    if not timedelta(seconds=1) <= remaining <= timedelta(seconds=MAX_TTL_SECONDS):
        raise MutationRejected(
            InvalidInput(
                ("expiresAt",), f"{remaining.total_seconds():.6f} seconds from now", TTL_ALLOWED
            )
        )


def schedule_expiry(session: WriteSession, seconds: Decimal | None) -> None:
    """Send a message for the earliest new end after the commit.

    Args:
        session: The session.
        seconds: The time until that end; None if no membership has a new end.
    """
    if seconds is not None and seconds <= MAX_DELAY_SECONDS:
        session.after_commit(Message(EXPIRE_DUE_MEMBERSHIPS, delay_seconds=float(seconds)))
