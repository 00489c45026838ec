"""Operations on imports: create, start, apply and cancel."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import text

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit.records import AuditAction
from segmentql.errors import (
    ImportStateConflict,
    MutationRejected,
    SegmentNotFound,
)
from segmentql.imports.audit_entries import audit_step
from segmentql.imports.file_format import ListFormat
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.reads import lock_import
from segmentql.imports.records import (
    FINISHED,
    ImportMode,
    ImportOptions,
    ImportRecord,
    SegmentAlgebra,
    UploadSource,
)
from segmentql.imports.request_times import check_times
from segmentql.imports.stored_json import (
    counts_to_json,
    options_to_json,
    source_to_json,
)
from segmentql.objects import service as objects
from segmentql.principal import Actor
from segmentql.segments.rows import SEGMENT_COLUMNS
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


_IS_OVERDUE = text("""
SELECT EXISTS (SELECT FROM imports WHERE id = :import_id AND deadline_at <= clock_timestamp())
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


@dataclass(frozen=True, slots=True)
class SlugAlgebra:
    """A list of users that is computed from the members of segments, by the segments' slugs."""

    any_of: Sequence[str] | None
    all_of: Sequence[str] | None
    none_of: Sequence[str] | None
    as_of: datetime | None


async def create_import(
    session: WriteSession,
    slug: str,
    mode: ImportMode,
    options: ImportOptions,
    source: UploadSource | SlugAlgebra,
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
    as_of = source.as_of if isinstance(source, SlugAlgebra) else None
    await check_times(session, row.read_at, expires_at=options.expires_at, as_of=as_of)
    is_upload = isinstance(source, UploadSource)
    if not is_upload:  # The members of segments are read by their ids.
        options = replace(options, list_format=ListFormat())
    stored_source = source if isinstance(source, UploadSource) else await _resolve(session, source)
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
    record = await lock_import(session, import_id)
    await audit_step(session, record, AuditAction.IMPORT_CREATED, actor, after=record)
    if not is_upload:
        session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return record


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
    record = await lock_import(session, import_id)
    if upload_key is None or not await objects.keep_upload(session, file_key):
        raise MutationRejected(ImportStateConflict(("id",), status=record.status))
    await objects.discard(session, [upload_key], max_write_seconds=UPLOAD_HOURS * 3600)
    await audit_step(session, record, AuditAction.IMPORT_STARTED, actor, after=record)
    session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return record


async def apply_import(
    session: WriteSession, import_id: int, *, allowed_removals: int | None, actor: Actor
) -> ImportRecord:
    """Apply an import after its dry run or hold.

    If the removals need a confirmation and exceed `allowed_removals`, the import is or stays HELD.

    Raises:
        MutationRejected: the import does not exist, it is neither VALIDATED nor HELD, or its
            deadline has passed.
    """
    before = await lock_import(session, import_id)
    is_waiting = before.status in {ImportStatus.VALIDATED, ImportStatus.HELD}
    if not is_waiting or await is_overdue(session, import_id):
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
        held = await lock_import(session, import_id)
        if before.status is not ImportStatus.HELD:
            await audit_step(session, held, AuditAction.IMPORT_HELD, actor, after=held)
        return held
    await session.execute(_APPLY, {**values, "counts": _unreached_counts_json(before)})
    after = await lock_import(session, import_id)
    await audit_step(session, after, AuditAction.IMPORT_APPLIED, actor, before=before, after=after)
    session.after_commit(Message(ADVANCE_IMPORT, (import_id,)))
    return after


async def is_overdue(session: ReadSession | WriteSession, import_id: int) -> bool:
    """Return whether an import has waited too long for `startImport` or `applyImport`."""
    return bool((await session.execute(_IS_OVERDUE, {"import_id": import_id})).scalar_one())


async def cancel_import(
    session: WriteSession, import_id: int, *, actor: Actor, reason: str | None = None
) -> ImportRecord:
    """Cancel an import. What was applied stays.

    Raises:
        MutationRejected: the import does not exist, or it is finished.
    """
    before = await lock_import(session, import_id)
    if before.status in FINISHED:
        raise MutationRejected(ImportStateConflict(("id",), status=before.status))
    is_applying = before.status is ImportStatus.APPLYING
    counts = (
        counts_to_json(before.count_by_outcome) if is_applying else _unreached_counts_json(before)
    )
    await session.execute(_CANCEL, {"import_id": import_id, "reason": reason, "counts": counts})
    after = await lock_import(session, import_id)
    await audit_step(
        session, after, AuditAction.IMPORT_CANCELLED, actor, before=before, after=after
    )
    session.after_commit(Message(FINISH_IMPORT, (import_id,)))
    return after


def _unreached_counts_json(record: ImportRecord) -> str:
    """Return the counts of an import of which nothing is applied yet, as JSON."""
    counts = {o: n for o, n in record.count_by_outcome.items() if o in FINAL_BEFORE_APPLYING}
    unreached = sum(record.count_by_outcome.values()) - sum(counts.values())
    if unreached:
        counts[RowOutcome.NOT_REACHED] = unreached
    return counts_to_json(counts)
