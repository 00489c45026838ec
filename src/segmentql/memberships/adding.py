"""The SQL of `onExisting`, which all changes that add members by hand share."""

from typing import Final

_BECOMES_MANUAL: Final = "m.cause <> 'MANUAL'"
_NEW_END: Final = """
CASE WHEN CAST(:on_existing AS text) = 'REPLACE' THEN excluded.expires_at
     WHEN m.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
     ELSE greatest(m.expires_at, excluded.expires_at) END
"""

ON_EXISTING_MEMBERSHIP: Final = f"""
    -- The existing membership is active: the CTE `change` is empty while an expired one is stored.
    ON CONFLICT (user_id, segment_id) DO UPDATE SET
        updated_at = excluded.updated_at,
        expires_at = {_NEW_END},
        cause = 'MANUAL',
        actor = CASE WHEN {_BECOMES_MANUAL} THEN excluded.actor ELSE m.actor END,
        api_key_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.api_key_id ELSE m.api_key_id END,
        import_id = CASE WHEN {_BECOMES_MANUAL} THEN excluded.import_id ELSE m.import_id END
    WHERE CAST(:on_existing AS text) <> 'KEEP'
        AND ({_BECOMES_MANUAL} OR m.expires_at IS DISTINCT FROM {_NEW_END})
"""
"""The end of `INSERT INTO memberships AS m`: it applies `:on_existing` to existing memberships.

A returned row was inserted or updated. A membership that stays as it is is not returned.
"""
