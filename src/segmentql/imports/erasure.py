"""The erasure of keys of users from the imports that may have them.

An import that has not read its file yet may store the key again, because the file has it.

A key is erased from a text that has it as a whole: without a letter, a digit or a `_` directly
before or after it. So a short key does not change words that contain it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import text

from segmentql.adapters.sessions import WriteSession
from segmentql.imports.columns import MAX_LISTED_NAME_CHARACTERS
from segmentql.objects import service as objects

# A list of ids can have a key in a row that was rejected, or that was taken for a header. The
# refusal of a file can have a key as the name of a column.
_MAY_HAVE_KEYS: Final = """(
    i.options ->> 'identity' = 'KEY' OR i.counts ?| ARRAY['HEADER', 'MALFORMED', 'OUT_OF_RANGE']
    OR i.status = 'REFUSED')
"""

# The staged rows of all imports may be many millions. If the tables were small at the last ANALYZE,
# the planner would not use the indexes.
_DISABLE_SCANS = text("SELECT set_config('enable_seqscan', 'off', true)")
_ENABLE_SCANS = text("SELECT set_config('enable_seqscan', 'on', true)")

# A user of a list who is not applied yet becomes unknown.
_ERASE_FROM_USERS = text("""
UPDATE import_users SET user_key = NULL, user_id = NULL
WHERE user_key = ANY(CAST(:user_keys AS text[])) AND user_key IS NOT NULL
""")

_ERASE_FROM_ROWS = text("""
UPDATE import_rows SET value = NULL, user_key = NULL, detail = NULL
WHERE user_key = ANY(CAST(:user_keys AS text[])) AND user_key IS NOT NULL
""")

# Rejected rows and headers.
_ERASE_FROM_OTHER_ROWS = text("""
UPDATE import_rows
SET value = regexp_replace(value COLLATE pg_unicode_fast, CAST(:words AS text), '', 'g')
WHERE user_id IS NULL AND user_key IS NULL AND value <> ''
  AND value COLLATE pg_unicode_fast ~ CAST(:words AS text)
""")

# A failure quotes names of columns. A result that is being made of the rows of an earlier version
# is rejected.
_ERASE_FROM_IMPORTS = text(f"""
UPDATE imports i SET
    result_key = NULL, filtered_keys = '{{}}', rows_version = rows_version + 1,
    failure = regexp_replace(failure, CAST(:quoted AS text), '""', 'g'),
    rejections = (
        SELECT coalesce(jsonb_agg(
            jsonb_set(rejection, '{{1}}', to_jsonb(regexp_replace(
                (rejection ->> 1) COLLATE pg_unicode_fast, CAST(:words AS text), '', 'g')))
            ORDER BY number), '[]')
        FROM jsonb_array_elements(i.rejections) WITH ORDINALITY AS listed (rejection, number))
WHERE {_MAY_HAVE_KEYS}
  AND (result_key IS NOT NULL OR filtered_keys <> '{{}}' OR rejections <> '[]' OR needs_cleanup
    OR failure IS NOT NULL)
RETURNING old.result_key, ARRAY(SELECT value FROM jsonb_each_text(old.filtered_keys)) AS filtered
""")


async def erase_keys(session: WriteSession, user_keys: Sequence[str]) -> None:
    """Erase keys from the staged lists of imports, and delete the results that may have them.

    A result that is not made yet is made without the keys.

    Args:
        session: The session of the transaction that erased the keys. It has called
            `lock_erasure_of_keys`.
        user_keys: The keys.
    """
    keys = {"user_keys": list(user_keys)}
    words = {"words": rf"(?<![[:alnum:]_])(?:{_alternatives(user_keys)})(?![[:alnum:]_])"}
    quoted = {"quoted": f'"(?:{_alternatives(map(_as_column_name, user_keys))})"'}
    await session.execute(_DISABLE_SCANS)
    await session.execute(_ERASE_FROM_USERS, keys)
    await session.execute(_ERASE_FROM_ROWS, keys)
    await session.execute(_ERASE_FROM_OTHER_ROWS, words)
    await session.execute(_ENABLE_SCANS)
    rows = (await session.execute(_ERASE_FROM_IMPORTS, {**words, **quoted})).all()
    files = [key for row in rows for key in (row.result_key, *row.filtered) if key is not None]
    await objects.discard(session, files)


def _alternatives(texts: Iterable[str]) -> str:
    """Return a regular expression of PostgreSQL that matches each of the texts."""
    escaped = {re.sub(r"([^\w])", r"\\\1", each, flags=re.ASCII) for each in texts}
    return "|".join(sorted(escaped))


def _as_column_name(user_key: str) -> str:
    """Return a key as the refusal of a file lists it."""
    if len(user_key) <= MAX_LISTED_NAME_CHARACTERS:
        return user_key
    return user_key[:MAX_LISTED_NAME_CHARACTERS] + "..."
