"""The erasure of keys of users from the imports that may have them.

An import that has not read its file yet may store the key again, because the file has it.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from segmentql.adapters.database import WriteSession
from segmentql.objects import service as objects

# A list of ids can have a key in a row that was rejected, or that was taken for a header.
_MAY_HAVE_KEYS: Final = """(
    i.options ->> 'identity' = 'KEY' OR i.counts ?| ARRAY['HEADER', 'MALFORMED'])
"""

# A user of a list who is not applied yet becomes unknown.
_ERASE_FROM_USERS = text("""
UPDATE import_users SET user_key = NULL, user_id = NULL WHERE user_key = ANY(:user_keys)
""")

_ERASE_FROM_ROWS = text("""
UPDATE import_rows r SET value = NULL, user_key = NULL, detail = NULL
WHERE r.user_key = ANY(:user_keys) OR EXISTS (
    SELECT FROM unnest(CAST(:user_keys AS text[])) AS erased (user_key)
    WHERE strpos(r.value, erased.user_key) > 0)
""")

# A result that is being made of the rows of an earlier version is rejected.
_ERASE_FROM_IMPORTS = text(f"""
UPDATE imports i SET
    result_key = NULL, filtered_keys = '{{}}', rows_version = rows_version + 1,
    rejections = (
        SELECT coalesce(jsonb_agg(CASE
            WHEN EXISTS (
                SELECT FROM unnest(CAST(:user_keys AS text[])) AS erased (user_key)
                WHERE strpos(rejection ->> 1, erased.user_key) > 0
            ) THEN jsonb_set(rejection, '{{1}}', '""') ELSE rejection END ORDER BY number), '[]')
        FROM jsonb_array_elements(i.rejections) WITH ORDINALITY AS listed (rejection, number))
WHERE {_MAY_HAVE_KEYS}
  AND (result_key IS NOT NULL OR filtered_keys <> '{{}}' OR rejections <> '[]' OR needs_cleanup)
RETURNING old.result_key, ARRAY(SELECT value FROM jsonb_each_text(old.filtered_keys)) AS filtered
""")


async def erase_keys(session: WriteSession, user_keys: Sequence[str]) -> None:
    """Erase keys from the staged lists of imports, and delete the results that may have them.

    A result that is not made yet is made without the keys.

    Args:
        session: The session of the transaction that erased the keys.
        user_keys: The keys.
    """
    values = {"user_keys": list(user_keys)}
    await session.execute(_ERASE_FROM_USERS, values)
    await session.execute(_ERASE_FROM_ROWS, values)
    rows = (await session.execute(_ERASE_FROM_IMPORTS, values)).all()
    keys = [key for row in rows for key in (row.result_key, *row.filtered) if key is not None]
    await objects.discard(session, keys)
