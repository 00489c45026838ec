"""SQL of flags. A user is named by the id or by the key, and is not stored by an evaluation."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import TextClause, text

from segmentql.adapters.autocommit import array_parameter
from segmentql.adapters.sessions import ReadSession
from segmentql.memberships.reads import NOT_EXPIRED
from segmentql.ofrep.records import NOT_IN, FlagRecord, FlagsRecord
from segmentql.tables import Cause

MAX_FLAGS: Final = 1000
"""The maximum number of flags in one response."""


def _timestamp(column: str) -> str:
    """Return the SQL of a timestamp as the API writes it. Python would take longer to write it."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


_FLAG_COLUMNS: Final = f"m.cause, {_timestamp('m.joined_at')}, {_timestamp('m.expires_at')}"


def _flags(*, user_type: str, user_join: str, user_id: str) -> TextClause:
    """Return the statement of pairs of a user and a slug."""
    return text(f"""
SELECT requested.named_user, s.slug, {_FLAG_COLUMNS}
FROM unnest(CAST(:users AS {user_type}[]), CAST(:slugs AS text[])) AS requested (named_user, slug)
JOIN segments s ON s.slug = requested.slug AND s.deleted_at IS NULL
{user_join}
LEFT JOIN memberships m ON m.user_id = {user_id} AND m.segment_id = s.id AND {NOT_EXPIRED}
""")


_FLAGS_BY_ID: Final = _flags(user_type="bigint", user_join="", user_id="requested.named_user")

_FLAGS_BY_KEY: Final = _flags(
    user_type="text",
    user_join="LEFT JOIN users u ON u.key = requested.named_user",
    user_id="u.id",
)


def _all_flags(*, user: str, user_type: str, user_join: str) -> TextClause:
    """Return the statement of all flags of many users. Its first row lists the segments."""
    return text(f"""
WITH listed AS MATERIALIZED (
    SELECT id, slug FROM segments
    WHERE deleted_at IS NULL AND slug >= :prefix AND slug < :prefix_end
    ORDER BY id LIMIT {MAX_FLAGS + 1}  -- a new segment never displaces an older one
)
SELECT array_agg(slug ORDER BY id), NULL, NULL, NULL, NULL, NULL FROM listed
UNION ALL
SELECT NULL, {user}, listed.slug, {_FLAG_COLUMNS}
FROM memberships m JOIN listed ON listed.id = m.segment_id {user_join}
WHERE {user} = ANY({array_parameter("users", user_type)}) AND {NOT_EXPIRED}
""")


_ALL_FLAGS_BY_ID: Final = _all_flags(user="m.user_id", user_type="bigint", user_join="")

_ALL_FLAGS_BY_KEY: Final = _all_flags(
    user="u.key", user_type="text", user_join="JOIN users u ON u.id = m.user_id"
)


async def flags_by_id(
    session: ReadSession, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], FlagRecord]:
    """Return the flag of each (user id, slug) pair whose segment exists."""
    return await _read_flags(session, _FLAGS_BY_ID, pairs)


async def flags_by_key(
    session: ReadSession, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], FlagRecord]:
    """Return the flag of each (user key, slug) pair whose segment exists."""
    return await _read_flags(session, _FLAGS_BY_KEY, pairs)


async def _read_flags(
    session: ReadSession, statement: TextClause, pairs: Sequence[tuple[Any, str]]
) -> dict[Any, FlagRecord]:
    users, slugs = zip(*pairs, strict=True)
    rows = await session.fetch(statement, {"users": list(users), "slugs": list(slugs)})
    return {(user, slug): _flag(*columns) for user, slug, *columns in rows}


def _flag(cause: str | None, joined_at: str | None, expires_at: str | None) -> FlagRecord:
    return NOT_IN if cause is None else FlagRecord(Cause(cause), joined_at, expires_at)


async def all_flags_by_id(
    session: ReadSession, user_ids: Sequence[int], *, prefix: str
) -> dict[int, FlagsRecord]:
    """Return the flags of the segments whose slugs have a prefix, for each user id.

    If there are more than `MAX_FLAGS`, those that were created first are returned.
    """
    return await _read_all_flags(session, _ALL_FLAGS_BY_ID, user_ids, prefix)


async def all_flags_by_key(
    session: ReadSession, user_keys: Sequence[str], *, prefix: str
) -> dict[str, FlagsRecord]:
    """Return the same as `all_flags_by_id` for each user key."""
    return await _read_all_flags(session, _ALL_FLAGS_BY_KEY, user_keys, prefix)


async def _read_all_flags(
    session: ReadSession, statement: TextClause, users: Sequence[Any], prefix: str
) -> dict[Any, FlagsRecord]:
    # Slugs are ASCII, so the end sorts after all slugs with the prefix.
    values = {"users": list(users), "prefix": prefix, "prefix_end": prefix + "\x7f"}
    rows = await session.fetch(statement, values)
    slugs: Sequence[str] = ()
    flags: dict[Any, dict[str, FlagRecord]] = {user: {} for user in users}
    for listed, user, slug, *columns in rows:
        if user is None:
            slugs = listed or ()
        else:
            flags[user][slug] = _flag(*columns)
    is_truncated = len(slugs) > MAX_FLAGS
    return {
        user: FlagsRecord(slugs[:MAX_FLAGS], is_truncated, flags_of_user)
        for user, flags_of_user in flags.items()
    }
