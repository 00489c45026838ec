"""Requests for exports, and reads."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.errors import MutationRejected, SegmentNotFound
from segmentql.exports.jobs import MAKE_EXPORT
from segmentql.exports.records import ExportRecord, ExportStart
from segmentql.principal import Actor
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record
from segmentql.tables import ReportStatus

EXPORT_COLUMNS: Final = f"""
e.id AS export_id, e.status, e.as_of, e.cursor, e.gzip, e.row_count, e.size_bytes,
e.created_at AS export_created_at, e.finished_at, e.failure, e.object_key, {SEGMENT_COLUMNS}
"""
"""The columns of `_export_record`, for statements that read exports as `e`, segments as `s`."""

_FROM: Final = "exports e JOIN segments s ON s.id = e.segment_id"

_CREATE = text(f"""
WITH e AS (
    INSERT INTO exports
        (segment_id, status, as_of, cursor, gzip, actor, created_at, next_attempt_at)
    SELECT id, 'QUEUED', :as_of, :cursor, :gzip, CAST(:actor AS text), at, at
    FROM segments, (SELECT clock_timestamp() AS at OFFSET 0) AS moment
    WHERE id = :segment_id AND deleted_at IS NULL
    RETURNING *
)
SELECT {EXPORT_COLUMNS} FROM e JOIN segments s ON s.id = e.segment_id
""")

_BY_IDS = text(f"SELECT {EXPORT_COLUMNS} FROM {_FROM} WHERE e.id = ANY(:export_ids)")

_PAGE = text(f"""
SELECT {EXPORT_COLUMNS} FROM {_FROM} WHERE e.id < :before ORDER BY e.id DESC LIMIT :rows
""")

# Few segments have had the same slug.
_PAGE_OF_SLUG = text(f"""
SELECT {EXPORT_COLUMNS}
FROM segments s CROSS JOIN LATERAL (
    SELECT * FROM exports WHERE exports.segment_id = s.id AND exports.id < :before
    ORDER BY exports.id DESC LIMIT :rows
) AS e
WHERE s.slug = :slug ORDER BY e.id DESC LIMIT :rows
""")


def _export_record(row: Row[Any]) -> ExportRecord:
    return ExportRecord(
        export_id=row.export_id,
        segment=segment_record(row),
        status=ReportStatus(row.status),
        as_of=row.as_of,
        cursor=row.cursor,
        is_gzip=row.gzip,
        row_count=row.row_count,
        size_bytes=row.size_bytes,
        created_at=row.export_created_at,
        finished_at=row.finished_at,
        failure=row.failure,
        object_key=row.object_key,
    )


async def create_export(
    session: WriteSession, start: ExportStart, *, is_gzip: bool, actor: Actor
) -> ExportRecord:
    """Request an export, which a worker makes.

    Raises:
        MutationRejected: the segment has been deleted.
    """
    values = {
        "segment_id": start.segment_id,
        "as_of": start.as_of,
        "cursor": start.cursor.encode(),
        "gzip": is_gzip,
        "actor": actor.name,
    }
    row = (await session.execute(_CREATE, values)).one_or_none()
    if row is None:
        raise MutationRejected(SegmentNotFound(("slug",), slugs=(start.slug,)))
    export = _export_record(row)
    await audit.record(
        session,
        actor=actor,
        action=AuditAction.EXPORT_REQUESTED,
        target=export.global_id,
        segment_id=start.segment_id,
        after={"slug": start.slug, "asOf": export.as_of, "gzip": is_gzip},
    )
    session.after_commit(Message(MAKE_EXPORT, (export.export_id,)))
    return export


async def exports_by_id(session: ReadSession, export_ids: Sequence[int]) -> dict[int, ExportRecord]:
    """Return the exports with these ids; unknown and removed exports are absent."""
    rows = await session.execute(_BY_IDS, {"export_ids": list(export_ids)})
    return {row.export_id: _export_record(row) for row in rows}


async def export_page(
    session: ReadSession, *, before: int, slug: str | None, rows: int
) -> list[ExportRecord]:
    """Return exports, newest first.

    Args:
        session: The session.
        before: The export id below which the page begins.
        slug: If set, the page has only exports of segments that have or had this slug.
        rows: The maximum number of exports.
    """
    values = {"before": before, "slug": slug, "rows": rows}
    statement = _PAGE if slug is None else _PAGE_OF_SLUG
    return [_export_record(row) for row in await session.execute(statement, values)]
