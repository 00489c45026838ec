"""Reads of imports."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Row, text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.errors import ImportNotFound, MutationRejected
from segmentql.imports.records import ImportMode, ImportRecord, RejectionRecord
from segmentql.imports.stored_json import (
    counts_from_json,
    options_from_json,
    source_from_json,
)
from segmentql.segments.rows import SEGMENT_COLUMNS, segment_record
from segmentql.tables import ImportStatus, RowOutcome

IMPORT_COLUMNS: Final = f"""
i.id AS import_id, i.status, i.mode, i.options, i.source, i.actor, i.api_key_id,
i.created_at AS import_created_at, i.finished_at, i.deadline_at, i.failure, i.upload_key,
i.file_key, i.result_key, i.filtered_keys, i.row_count, i.listed_users, i.total_users,
i.applied_users, i.removals, i.removed_users, i.allowed_removals, i.counts, i.rejections,
{SEGMENT_COLUMNS}
"""
"""The columns of `import_record`, for statements that read imports as `i`, segments as `s`."""

_FROM: Final = "imports i JOIN segments s ON s.id = i.segment_id"

_LOCK = text(f"""
SELECT {IMPORT_COLUMNS} FROM {_FROM} WHERE i.id = :import_id FOR NO KEY UPDATE OF i
""")

_BY_IDS = text(f"SELECT {IMPORT_COLUMNS} FROM {_FROM} WHERE i.id = ANY(:import_ids)")

_PAGE = text(f"""
SELECT {IMPORT_COLUMNS} FROM {_FROM} WHERE i.id < :before ORDER BY i.id DESC LIMIT :rows
""")

# Few segments have had the same slug.
_PAGE_OF_SLUG = text(f"""
SELECT {IMPORT_COLUMNS}
FROM segments s CROSS JOIN LATERAL (
    SELECT * FROM imports WHERE imports.segment_id = s.id AND imports.id < :before
    ORDER BY imports.id DESC LIMIT :rows
) AS i
WHERE s.slug = :slug ORDER BY i.id DESC LIMIT :rows
""")


def import_record(row: Row[Any]) -> ImportRecord:
    """Build the record from a row with `IMPORT_COLUMNS`."""
    return ImportRecord(
        import_id=row.import_id,
        segment=segment_record(row),
        status=ImportStatus(row.status),
        mode=ImportMode(row.mode),
        options=options_from_json(_from_json(row.options)),
        source=source_from_json(_from_json(row.source)),
        actor=row.actor,
        api_key_id=row.api_key_id,
        created_at=row.import_created_at,
        finished_at=row.finished_at,
        deadline_at=row.deadline_at,
        failure=row.failure,
        upload_key=row.upload_key,
        file_key=row.file_key,
        result_key=row.result_key,
        filtered_keys=_from_json(row.filtered_keys),
        rows=row.row_count,
        listed_users=row.listed_users,
        total_users=row.total_users,
        applied_users=row.applied_users,
        removals=row.removals,
        removed_users=row.removed_users,
        allowed_removals=row.allowed_removals,
        count_by_outcome=counts_from_json(_from_json(row.counts)),
        rejected_rows=[
            RejectionRecord(line, value, RowOutcome(outcome), detail)
            for line, value, outcome, detail in _from_json(row.rejections)
        ],
    )


def _from_json(value: Any) -> Any:
    """Return a JSON value. A text() statement returns jsonb as text."""
    return orjson.loads(value) if isinstance(value, str) else value


async def lock_import(session: WriteSession, import_id: int) -> ImportRecord:
    """Lock an import until the transaction ends; return it.

    Raises:
        MutationRejected: the import does not exist.
    """
    row = (await session.execute(_LOCK, {"import_id": import_id})).one_or_none()
    if row is None:
        raise MutationRejected(ImportNotFound(("id",)))
    return import_record(row)


async def imports_by_id(session: ReadSession, import_ids: Sequence[int]) -> dict[int, ImportRecord]:
    """Return the imports with these ids; unknown ids are absent."""
    rows = await session.execute(_BY_IDS, {"import_ids": list(import_ids)})
    return {row.import_id: import_record(row) for row in rows}


async def import_page(
    session: ReadSession, *, before: int, slug: str | None, rows: int
) -> list[ImportRecord]:
    """Return imports, newest first.

    Args:
        session: The session.
        before: The import id below which the page begins.
        slug: If set, the page has only imports into segments with this slug.
        rows: The maximum number of imports.
    """
    values = {"before": before, "slug": slug, "rows": rows}
    statement = _PAGE if slug is None else _PAGE_OF_SLUG
    return [import_record(row) for row in await session.execute(statement, values)]
