"""Rules and SQL of segments."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.errors import (
    MutationRejected,
    SegmentAlreadyExists,
    SegmentNotFound,
    VersionConflict,
)
from segmentql.segments.jobs import RECORD_SEGMENT_LEAVES

MAX_RACES: Final = 10
"""Tries of a statement that lost against another client making or deleting the same segment."""

SEGMENT_COLUMNS: Final = """
s.id AS segment_id, s.slug, s.name, s.description, s.version,
s.created_at AS segment_created_at, s.updated_at AS segment_updated_at, s.deleted_at
"""
"""What the GraphQL type is made of, in every statement that reads segments as `s`."""

_BY_SLUGS = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s WHERE s.slug = ANY(:slugs) AND s.deleted_at IS NULL
""")

_PAGE = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s
WHERE s.deleted_at IS NULL AND s.slug > :after
  AND s.slug >= :prefix AND s.slug < :prefix_end
ORDER BY s.slug LIMIT :rows
""")

_EXISTING = text("SELECT count(*) FROM segments WHERE deleted_at IS NULL")

_CREATE = text(f"""
INSERT INTO segments AS s (slug, name, description, created_at, updated_at)
SELECT :slug, CAST(:name AS text), CAST(:description AS text), at, at
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
ON CONFLICT (slug) WHERE deleted_at IS NULL DO NOTHING
RETURNING {SEGMENT_COLUMNS}
""")

# A lock that lets memberships be added meanwhile ...
_LOCK_TO_UPDATE = text(f"""
SELECT {SEGMENT_COLUMNS} FROM segments s
WHERE s.slug = :slug AND s.deleted_at IS NULL FOR NO KEY UPDATE
""")

# ... and one that does not: whoever adds holds the segment FOR KEY SHARE until it is committed.
# Row locks let those who share overtake one who waits for them all, so that a busy segment could
# not be deleted. An advisory lock is a fair queue: both ask for it before the row.
SEGMENT_LOCK_CLASS: Final = 7001
SEGMENT_LOCK: Final = f"{SEGMENT_LOCK_CLASS}, CAST(id % 2147483647 AS integer)"
"""The two numbers of the advisory lock of a segment's `id`; two segments may share one."""

_LOCK_TO_DELETE = text(f"""
WITH named AS MATERIALIZED (
    SELECT id FROM segments WHERE slug = :slug AND deleted_at IS NULL
), queued AS MATERIALIZED (
    SELECT id, pg_advisory_xact_lock({SEGMENT_LOCK}) FROM named
)
SELECT {SEGMENT_COLUMNS} FROM segments s JOIN queued USING (id)
WHERE s.deleted_at IS NULL FOR UPDATE OF s
""")

_UPDATE = text(f"""
UPDATE segments s
SET name = :name, description = :description, version = s.version + 1,
    updated_at = greatest(clock_timestamp(), s.updated_at + interval '1 microsecond')
WHERE s.id = :segment_id
RETURNING {SEGMENT_COLUMNS}
""")

_BUMP_VERSION = text(f"""
UPDATE segments s
SET version = s.version + 1,
    updated_at = greatest(clock_timestamp(), s.updated_at + interval '1 microsecond')
WHERE s.id = :segment_id
RETURNING {SEGMENT_COLUMNS}
""")

# Later than every join and leave of its members, even if the clock was set back.
_DELETE = text("""
UPDATE segments
SET deleted_by = :actor, deleted_at = greatest(clock_timestamp(), (
    SELECT max(at) + interval '1 microsecond'
    FROM history WHERE segment_id = :segment_id AND at >= now()
))
WHERE id = :segment_id
""")


class Unset:
    """The type of `UNSET`: a field that a change leaves as it is."""


UNSET: Final = Unset()


async def create_segment(
    session: WriteSession, *, slug: str, name: str | None, description: str | None
) -> Row[Any]:
    """Make a segment with nobody in it.

    Raises:
        Refused: another segment bears the slug.
    """
    values = {"slug": slug, "name": name, "description": description}
    for _ in range(MAX_RACES):
        made = (await session.execute(_CREATE, values)).one_or_none()
        if made:
            return made
        there = (await session.execute(_BY_SLUGS, {"slugs": [slug]})).one_or_none()
        if there:
            raise MutationRejected(SegmentAlreadyExists(("slug",), segment=there))
    raise AssertionError("a segment was made and deleted again and again")


async def update_segment(
    session: WriteSession,
    *,
    slug: str,
    name: str | Unset | None,
    description: str | Unset | None,
    expected_version: int | None,
) -> Row[Any]:
    """Change what a segment is called; what is already so moves neither version nor time.

    Raises:
        Refused: no such segment, or it is not at the expected version.
    """
    segment = await lock_segment(session, slug=slug, expected_version=expected_version)
    new_name = segment.name if isinstance(name, Unset) else name
    new_description = segment.description if isinstance(description, Unset) else description
    if (new_name, new_description) == (segment.name, segment.description):
        return segment
    return (
        await session.execute(
            _UPDATE,
            {
                "segment_id": segment.segment_id,
                "name": new_name,
                "description": new_description,
            },
        )
    ).one()


async def lock_segment(
    session: WriteSession, *, slug: str, expected_version: int | None = None
) -> Row[Any]:
    """Lock a segment for a change of it; its members may come and go meanwhile.

    Raises:
        Refused: no such segment, or it is not at the expected version.
    """
    return await _locked(session, _LOCK_TO_UPDATE, slug, expected_version)


async def bump_version(session: WriteSession, segment_id: int) -> Row[Any]:
    """Give a locked segment its next version, for its plan has changed."""
    return (await session.execute(_BUMP_VERSION, {"segment_id": segment_id})).one()


async def delete_segment(
    session: WriteSession, *, slug: str, expected_version: int | None, actor: str | None
) -> int:
    """Delete a segment, whatever its size; workers record the leaves. Returns its number.

    Raises:
        Refused: no such segment, or it is not at the expected version.
    """
    segment = await _locked(session, _LOCK_TO_DELETE, slug, expected_version)
    segment_id: int = segment.segment_id
    await session.execute(_DELETE, {"segment_id": segment_id, "actor": actor})
    session.after_commit(Message(RECORD_SEGMENT_LEAVES, (segment_id,)))
    return segment_id


async def _locked(
    session: WriteSession, lock: Any, slug: str, expected_version: int | None
) -> Row[Any]:
    row: Row[Any] | None = (await session.execute(lock, {"slug": slug})).one_or_none()
    if row is None:
        raise MutationRejected(SegmentNotFound(("slug",), (slug,)))
    if expected_version is not None and row.version != expected_version:
        raise MutationRejected(VersionConflict(("expectedVersion",), expected_version, current=row))
    return row


async def segments_by_slug(session: ReadSession, slugs: Sequence[str]) -> dict[str, Row[Any]]:
    """Read the segments that bear these slugs now."""
    rows = await session.execute(_BY_SLUGS, {"slugs": list(slugs)})
    return {row.slug: row for row in rows}


async def segment_page(
    session: ReadSession, *, after: str, prefix: str, rows: int
) -> Sequence[Row[Any]]:
    """Read segments by slug (by code point), those after `after` that begin with `prefix`."""
    values = {
        "after": after,
        "prefix": prefix,
        # Slugs are ASCII, so this sorts after all that begin with the prefix: an index range.
        "prefix_end": prefix + "\x7f",
        "rows": rows,
    }
    return (await session.execute(_PAGE, values)).all()


async def count(session: ReadSession) -> int:
    """How many segments there are now."""
    return int((await session.execute(_EXISTING)).scalar_one())
