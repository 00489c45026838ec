"""Requests for imports, their decisions, and reads."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Row, text

from segmentql.adapters.database import ReadSession, WriteSession
from segmentql.adapters.jobs import Message
from segmentql.audit import service as audit
from segmentql.audit.records import AuditAction
from segmentql.errors import (
    ImportNotFound,
    ImportStateConflict,
    InvalidInput,
    MutationRejected,
    SegmentNotFound,
)
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.records import (
    FINISHED,
    ImportMode,
    ImportOptions,
    ImportRecord,
    RejectionRecord,
    SegmentAlgebra,
    Upload,
)
from segmentql.imports.stored_json import (
    counts_from_json,
    counts_to_json,
    options_from_json,
    options_to_json,
    source_from_json,
    source_to_json,
)
from segmentql.memberships.expiry import check_expiry
from segmentql.objects import service as objects
from segmentql.principal import NO_ACTOR, Actor
from segmentql.segments.service import SEGMENT_COLUMNS, segment_record
from segmentql.tables import ImportStatus, RowOutcome

UPLOAD_HOURS: Final = 24
"""How long an import waits for its upload and `startImport`."""

FINAL_BEFORE_APPLYING: Final = frozenset(
    {
        RowOutcome.HEADER,
        RowOutcome.BLANK,
        RowOutcome.MALFORMED,
        RowOutcome.OUT_OF_RANGE,
        RowOutcome.DUPLICATE,
    }
)
"""The outcomes that are final before the import is applied."""

_OUTCOMES: Final = {
    ImportStatus.HELD: AuditAction.IMPORT_HELD,
    ImportStatus.COMPLETED: AuditAction.IMPORT_COMPLETED,
    ImportStatus.REFUSED: AuditAction.IMPORT_REFUSED,
    ImportStatus.FAILED: AuditAction.IMPORT_FAILED,
}

IMPORT_COLUMNS: Final = f"""
i.id AS import_id, i.status, i.mode, i.options, i.source, i.actor, i.api_key_id,
i.created_at AS import_created_at, i.finished_at, i.deadline_at, i.failure, i.upload_key,
i.file_key, i.result_key, i.filtered_keys, i.row_count, i.total_users, i.applied_users, i.removals,
i.allowed_removals, i.counts, i.rejections, {SEGMENT_COLUMNS}
"""
"""The columns of `import_record`, for statements that read imports as `i`, segments as `s`."""

_FROM: Final = "imports i JOIN segments s ON s.id = i.segment_id"

_SEGMENT = text(f"""
SELECT {SEGMENT_COLUMNS}, clock_timestamp() AS read_at FROM segments s
WHERE s.slug = :slug AND s.deleted_at IS NULL FOR KEY SHARE
""")

_SEGMENT_IDS = text("""
SELECT slug, id FROM segments WHERE slug = ANY(:slugs) AND deleted_at IS NULL
""")

_CREATE = text(f"""
INSERT INTO imports (segment_id, status, mode, options, source, actor, api_key_id, created_at,
    queued_at, next_attempt_at, deadline_at, upload_key)
SELECT :segment_id, CAST(:status AS import_status), :mode, CAST(CAST(:options AS text) AS jsonb),
    CAST(CAST(:source AS text) AS jsonb), CAST(:actor AS text), CAST(:api_key_id AS text), at,
    CASE WHEN :status = 'QUEUED' THEN at END, CASE WHEN :status = 'QUEUED' THEN at END,
    CASE WHEN :status <> 'QUEUED' THEN at + make_interval(hours => {UPLOAD_HOURS}) END,
    CAST(:upload_key AS text)
FROM (SELECT clock_timestamp() AS at OFFSET 0) AS moment
RETURNING id
""")

_START = text("""
UPDATE imports SET
    status = 'QUEUED', file_key = :file_key, upload_key = NULL, deadline_at = NULL,
    queued_at = clock_timestamp(), next_attempt_at = clock_timestamp()
WHERE id = :import_id AND status = 'AWAITING_UPLOAD' AND deadline_at > clock_timestamp()
RETURNING old.upload_key
""")

_LOCK = text(f"""
SELECT {IMPORT_COLUMNS} FROM {_FROM} WHERE i.id = :import_id FOR NO KEY UPDATE OF i
""")

_APPLY = text("""
UPDATE imports SET
    status = 'APPLYING', allowed_removals = :allowed_removals, deadline_at = NULL, failure = NULL,
    queued_at = clock_timestamp(), next_attempt_at = clock_timestamp(),
    counts = CAST(CAST(:counts AS text) AS jsonb)
WHERE id = :import_id
""")

_HOLD = text("""
UPDATE imports SET status = 'HELD', failure = :reason WHERE id = :import_id
""")

_CANCEL = text("""
UPDATE imports SET
    status = 'CANCELLED', finished_at = clock_timestamp(), deadline_at = NULL,
    next_attempt_at = NULL, failure = :reason, counts = CAST(CAST(:counts AS text) AS jsonb),
    removals = CASE WHEN removals IS NOT NULL THEN removed_users END
WHERE id = :import_id
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


@dataclass(frozen=True, slots=True)
class SlugAlgebra:
    """A list of users that is computed from the members of segments, by the segments' slugs."""

    any_of: Sequence[str] | None
    all_of: Sequence[str] | None
    none_of: Sequence[str] | None
    as_of: datetime | None


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
        total_users=row.total_users,
        applied_users=row.applied_users,
        removals=row.removals,
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


async def create_import(
    session: WriteSession,
    slug: str,
    mode: ImportMode,
    options: ImportOptions,
    source: Upload | SlugAlgebra,
    *,
    actor: Actor,
) -> ImportRecord:
    """Create an import. One that computes its list from segments is queued at once.

    Raises:
        MutationRejected: a segment does not exist, or a time is out of range.
    """
    row = (await session.execute(_SEGMENT, {"slug": slug})).one_or_none()
    if row is None:
        raise MutationRejected(SegmentNotFound(("slug",), slugs=(slug,)))
    _check_times(row.read_at, options.expires_at, source)
    is_upload = isinstance(source, Upload)
    stored_source = source if isinstance(source, Upload) else await _resolve(session, source)
    import_id: int = (
        await session.execute(
            _CREATE,
            {
                "segment_id": row.segment_id,
                "status": ImportStatus.AWAITING_UPLOAD if is_upload else ImportStatus.QUEUED,
                "mode": mode,
                "options": options_to_json(options),
                "source": source_to_json(stored_source),
                "actor": actor.name,
                "api_key_id": actor.api_key_id,
                "upload_key": f"imports/uploads/{uuid.uuid4()}" if is_upload else None,
            },
        )
    ).scalar_one()
    record = await _locked(session, import_id)
    await _record(session, record, AuditAction.IMPORT_CREATED, actor, after=record)
    if not is_upload:
        session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return record


def _check_times(now: datetime, expires_at: datetime | None, source: Upload | SlugAlgebra) -> None:
    if expires_at is not None:
        check_expiry(expires_at - now)
    if isinstance(source, SlugAlgebra) and source.as_of is not None and source.as_of > now:
        raise MutationRejected(
            InvalidInput(
                ("source", "segments", "asOf"), "the time is in the future", "a time up to now"
            )
        )


async def _resolve(session: WriteSession, source: SlugAlgebra) -> SegmentAlgebra:
    """Return the source with the ids of its segments."""
    lists = {"anyOf": source.any_of, "allOf": source.all_of, "noneOf": source.none_of}
    slugs = sorted({slug for named in lists.values() for slug in named or ()})
    ids = {row.slug: row.id for row in await session.execute(_SEGMENT_IDS, {"slugs": slugs})}
    reasons = [
        SegmentNotFound(("source", "segments", field, str(position)), slugs=(slug,))
        for field, named in lists.items()
        for position, slug in enumerate(named or ())
        if slug not in ids
    ]
    if reasons:
        raise MutationRejected(*reasons)

    def resolved(named: Sequence[str] | None) -> list[int] | None:
        return None if named is None else sorted({ids[slug] for slug in named})

    return SegmentAlgebra(
        resolved(source.any_of), resolved(source.all_of), resolved(source.none_of), source.as_of
    )


async def start_import(
    session: WriteSession, import_id: int, file_key: str, *, actor: Actor
) -> ImportRecord:
    """Queue an import whose upload was copied to `file_key`.

    The link of the upload is valid for some time, so its object is deleted again after that time.

    Raises:
        MutationRejected: the import does not exist, or it does not wait for its upload.
    """
    values = {"import_id": import_id, "file_key": file_key}
    upload_key = (await session.execute(_START, values)).scalar_one_or_none()
    record = await _locked(session, import_id)
    if upload_key is None or not await objects.keep_upload(session, file_key):
        raise MutationRejected(ImportStateConflict(("id",), status=record.status))
    await objects.discard(session, [upload_key], max_write_seconds=UPLOAD_HOURS * 3600)
    await _record(session, record, AuditAction.IMPORT_STARTED, actor, after=record)
    session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return record


async def apply_import(
    session: WriteSession, import_id: int, *, allowed_removals: int | None, actor: Actor
) -> ImportRecord:
    """Apply an import after its dry run or hold.

    If the removals need a confirmation and exceed `allowed_removals`, the import is or stays HELD.

    Raises:
        MutationRejected: the import does not exist, or it is neither VALIDATED nor HELD.
    """
    before = await _locked(session, import_id)
    if before.status not in {ImportStatus.VALIDATED, ImportStatus.HELD}:
        raise MutationRejected(ImportStateConflict(("id",), status=before.status))
    removals = before.removals or 0
    if allowed_removals is None:
        is_allowed = before.status is ImportStatus.VALIDATED and before.failure is None
    else:
        is_allowed = removals <= allowed_removals
    values = {"import_id": import_id, "allowed_removals": allowed_removals}
    if not is_allowed:
        reason = before.failure or (
            f"the segment would lose {removals} members, and `allowRemovals` is {allowed_removals}"
        )
        await session.execute(_HOLD, {"import_id": import_id, "reason": reason})
        held = await _locked(session, import_id)
        if before.status is not ImportStatus.HELD:
            await _record(session, held, AuditAction.IMPORT_HELD, actor, after=held)
        return held
    await session.execute(_APPLY, {**values, "counts": unreached_counts(before)})
    after = await _locked(session, import_id)
    await _record(session, after, AuditAction.IMPORT_APPLIED, actor, before=before, after=after)
    session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return after


async def cancel_import(
    session: WriteSession, import_id: int, *, actor: Actor, reason: str | None = None
) -> ImportRecord:
    """Cancel an import. What was applied stays.

    Raises:
        MutationRejected: the import does not exist, or it is finished.
    """
    before = await _locked(session, import_id)
    if before.status in FINISHED:
        raise MutationRejected(ImportStateConflict(("id",), status=before.status))
    is_applying = before.status is ImportStatus.APPLYING
    counts = counts_to_json(before.count_by_outcome) if is_applying else unreached_counts(before)
    await session.execute(_CANCEL, {"import_id": import_id, "reason": reason, "counts": counts})
    after = await _locked(session, import_id)
    await _record(session, after, AuditAction.IMPORT_CANCELLED, actor, before=before, after=after)
    session.after_commit(Message(FINISH_IMPORT, (import_id,)))
    return after


def unreached_counts(record: ImportRecord) -> str:
    """Return the counts of an import of which nothing is applied yet, as JSON."""
    counts = {o: n for o, n in record.count_by_outcome.items() if o in FINAL_BEFORE_APPLYING}
    unreached = sum(record.count_by_outcome.values()) - sum(counts.values())
    if unreached:
        counts[RowOutcome.NOT_REACHED] = unreached
    return counts_to_json(counts)


async def _locked(session: WriteSession, import_id: int) -> ImportRecord:
    row = (await session.execute(_LOCK, {"import_id": import_id})).one_or_none()
    if row is None:
        raise MutationRejected(ImportNotFound(("id",)))
    return import_record(row)


async def record_outcome(session: WriteSession, import_id: int) -> None:
    """Record in the audit log that a worker held or ended an import, without an actor."""
    record = await _locked(session, import_id)
    await _record(session, record, _OUTCOMES[record.status], NO_ACTOR, after=record)


async def _record(
    session: WriteSession,
    record: ImportRecord,
    action: AuditAction,
    actor: Actor,
    *,
    before: ImportRecord | None = None,
    after: ImportRecord,
) -> None:
    await audit.record(
        session,
        actor=actor,
        action=action,
        target=record.global_id,
        segment_id=record.segment.segment_id,
        before=before.audit_state if before else None,
        after=after.audit_state,
    )


async def imports_by_id(session: ReadSession, import_ids: Sequence[int]) -> dict[int, ImportRecord]:
    """Return the imports with these ids; unknown and removed imports are absent."""
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
