"""SQL of the audit log: writing an entry, and pages of entries."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import Row, text

from segmentql.adapters.sessions import ReadSession, WriteSession
from segmentql.audit.records import AuditAction, AuditEntryRecord, AuditPage, AuditState
from segmentql.principal import Actor
from segmentql.validators import MAX_PAGE_ROWS

# The time of the entry is the default of its column: PostgreSQL's clock when the row is inserted.
_RECORD = text("""
INSERT INTO audit_log (actor, api_key_id, request_id, action, target, segment_id, before, after)
VALUES (:actor, :api_key_id, :request_id, :action, :target, :segment_id,
    CAST(CAST(:before AS text) AS jsonb), CAST(CAST(:after AS text) AS jsonb))
""")

# A constant, because the planner estimates a LIMIT from a column as a tenth of the table and sorts.
_MAX_ROWS: Final = MAX_PAGE_ROWS + 1

_OF_PAGE: Final = """
a.at >= coalesce(page.since, '-infinity') AND a.at < coalesce(page.until, 'infinity')
AND (a.at, a.id) < (coalesce(page.at, 'infinity'), coalesce(page.id, 0))
"""


def _entries(*, segments_only: bool, of_one_actor: bool, of_one_slug: bool) -> str:
    """Return the query of up to `_MAX_ROWS` entries of the page that the row `page` describes."""
    conditions = _OF_PAGE
    if of_one_actor:
        conditions += " AND a.actor = page.actor"
    if not of_one_slug:
        if segments_only:
            conditions += " AND a.segment_id IS NOT NULL"
        return f"""
        SELECT a.* FROM audit_log a WHERE {conditions}
        ORDER BY a.at DESC, a.id DESC LIMIT {_MAX_ROWS}
        """
    # Reads the entries of each segment by the index on (segment_id, at, id), because few segments
    # have had the same slug.
    return f"""
    SELECT a.* FROM segments s CROSS JOIN LATERAL (
        SELECT * FROM audit_log a WHERE a.segment_id = s.id AND {conditions}
        ORDER BY a.at DESC, a.id DESC LIMIT {_MAX_ROWS}
    ) AS a
    WHERE s.slug = page.slug
    ORDER BY a.at DESC, a.id DESC LIMIT {_MAX_ROWS}
    """


def _pages(*, segments_only: bool, of_one_actor: bool, of_one_slug: bool) -> str:
    entries = _entries(
        segments_only=segments_only, of_one_actor=of_one_actor, of_one_slug=of_one_slug
    )
    return f"""
    SELECT page.number, entry.id AS entry_id, entry.at, entry.actor, entry.action, entry.target,
        CAST(entry.before AS text) AS before, CAST(entry.after AS text) AS after, entry.request_id
    FROM unnest(
        CAST(:ats AS timestamptz[]), CAST(:ids AS bigint[]), CAST(:sinces AS timestamptz[]),
        CAST(:untils AS timestamptz[]), CAST(:actors AS text[]), CAST(:slugs AS text[])
    ) WITH ORDINALITY AS page (at, id, since, until, actor, slug, number)
    CROSS JOIN LATERAL ({entries}) AS entry
    ORDER BY page.number, entry.at DESC, entry.id DESC
    """


_STATEMENTS: Final = {
    (segments_only, of_one_actor, of_one_slug): text(
        _pages(segments_only=segments_only, of_one_actor=of_one_actor, of_one_slug=of_one_slug)
    )
    for segments_only, of_one_actor, of_one_slug in itertools.product((False, True), repeat=3)
}


async def record(
    session: WriteSession,
    *,
    actor: Actor,
    action: AuditAction,
    target: str,
    segment_id: int | None = None,
    before: AuditState | None = None,
    after: AuditState | None = None,
) -> None:
    """Write an entry in the transaction of the change.

    Call this after the change, when the transaction holds the locks of the target. So the entries
    of one target are in the order of its changes.

    Args:
        session: The session of the change.
        actor: The author of the change.
        action: The kind of the change.
        target: The id by which clients know the changed object.
        segment_id: The segment that the change concerns, if any.
        before: The state before the change; None if the target did not exist.
        after: The state after the change; None if the target does not exist any more.
    """
    await session.execute(
        _RECORD,
        {
            "actor": actor.name,
            "api_key_id": actor.api_key_id,
            "request_id": actor.request_id,
            "action": action.value,
            "target": target,
            "segment_id": segment_id,
            "before": _to_json(before),
            "after": _to_json(after),
        },
    )


def _to_json(state: AuditState | None) -> str | None:
    if state is None:
        return None
    return orjson.dumps(state, default=_json_value, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _json_value(value: object) -> str | float:
    """Return a timestamp as the API does, in UTC with six digits of a second, or a percent."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


async def audit_pages(
    session: ReadSession, pages: Sequence[AuditPage]
) -> dict[AuditPage, list[AuditEntryRecord]]:
    """Return pages of the log, newest first; empty pages are absent.

    One statement reads all pages with the same kinds of filters.
    """
    found: dict[AuditPage, list[AuditEntryRecord]] = {}
    for kinds, statement in _STATEMENTS.items():
        batch = [page for page in pages if _kinds_of_filters(page) == kinds]
        if batch:
            for row in await session.execute(statement, _parameters(batch)):
                page = batch[row.number - 1]
                entries = found.setdefault(page, [])
                if len(entries) < page.rows:
                    entries.append(_entry_record(row))
    return found


def _kinds_of_filters(page: AuditPage) -> tuple[bool, bool, bool]:
    return page.segments_only, page.actor is not None, page.slug is not None


def _parameters(pages: Sequence[AuditPage]) -> dict[str, list[Any]]:
    return {
        "ats": [page.after.at if page.after else None for page in pages],
        "ids": [page.after.entry_id if page.after else None for page in pages],
        "sinces": [page.since for page in pages],
        "untils": [page.until for page in pages],
        "actors": [page.actor for page in pages],
        "slugs": [page.slug for page in pages],
    }


def _entry_record(row: Row[Any]) -> AuditEntryRecord:
    return AuditEntryRecord(
        entry_id=row.entry_id,
        at=row.at,
        actor=row.actor,
        action=row.action,
        target=row.target,
        before=row.before,
        after=row.after,
        request_id=row.request_id,
    )
