"""The SQL of `onExisting`, which all changes that add members by hand share."""

from typing import Final

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
