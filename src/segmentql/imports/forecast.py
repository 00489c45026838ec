"""The forecast of an import: the users of its list, their expected outcomes, and the safeguards.

After the list is staged, one transaction marks repeated users, numbers the different users of the
list in the order of their ids, and plans the removals of REPLACE. The expected outcomes are the
counts of a dry run. When the import is applied, each outcome is decided again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from sqlalchemy import TextClause, text

from segmentql.adapters.database import WriteSession
from segmentql.adapters.jobs import Message
from segmentql.imports.file_format import Identity
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.records import REJECTED, ImportMode, ImportRecord
from segmentql.imports.service import record_outcome
from segmentql.imports.staging import Attempt, extend_lease
from segmentql.imports.stored_json import counts_to_json
from segmentql.memberships.reads import NOT_EXPIRED
from segmentql.objects import service as objects
from segmentql.rollouts.finished_sample import IN_FINISHED_SAMPLE, read_finished_sample
from segmentql.tables import ImportStatus, RowOutcome

FORECAST_TIMEOUT_SECONDS: Final = 1800
"""The time limit of each statement of the forecast."""

MIN_MEMBERS: Final = 100
"""The number of members from which on `maxRemovedPercent` applies."""

KEPT_REJECTIONS: Final = 100
"""The number of rejected rows that an import keeps for `rejections`."""

WAIT_DAYS: Final = 7
"""How long VALIDATED and HELD imports wait for `applyImport`."""

MANY_ROWS: Final = 20_000
"""The number of rows from which on nested loops are slower than scans of the tables."""

# Disable parallel workers to leave CPU for requests. The statistics of `import_rows` may be from
# before the rows were staged, so the planner would take a nested loop for a long list.
_SETTINGS = text(f"""
SELECT set_config('max_parallel_workers_per_gather', '0', true),
    set_config('work_mem', '64MB', true),
    set_config('enable_nestloop',
        CASE WHEN CAST(:rows AS bigint) < {MANY_ROWS} THEN 'on' ELSE 'off' END, true)
""")

_MARK_DUPLICATES: Final = {
    identity: text(f"""
    UPDATE import_rows r SET outcome = 'DUPLICATE'
    FROM (
        SELECT line, row_number() OVER (PARTITION BY {identity} ORDER BY line) AS repetition
        FROM import_rows WHERE import_id = :import_id AND outcome IS NULL
    ) AS numbered
    WHERE r.import_id = :import_id AND r.line = numbered.line AND numbered.repetition > 1
    """)
    for identity in ("user_id", "user_key")
}

_NEW_END: Final = """
coalesce(CAST(:expires_at AS timestamptz), now() + CAST(:ttl AS interval))
"""

# The outcome of adding the user to the list: `u` is the stored user, `m` the active membership.
_ADD_OUTCOME: Final = f"""
CASE
    WHEN u.id IS NULL THEN CASE WHEN CAST(:on_unknown_user AS text) = 'STORE'
        THEN 'JOINED' ELSE 'UNKNOWN_USER' END
    WHEN m.id IS NULL THEN CASE WHEN e.user_id IS NOT NULL AND CAST(:on_excluded AS text) = 'SKIP'
        THEN 'EXCLUDED' ELSE 'JOINED' END
    WHEN CAST(:on_existing AS text) = 'KEEP' THEN 'ALREADY_IN'
    WHEN CAST(:on_existing AS text) = 'EXTEND'
        AND (m.expires_at IS NULL OR m.expires_at >= {_NEW_END}) THEN 'ALREADY_IN'
    WHEN m.expires_at IS NOT DISTINCT FROM {_NEW_END} THEN 'ALREADY_IN'
    ELSE 'END_CHANGED' END
"""

_REMOVE_OUTCOME: Final = f"""
CASE
    WHEN u.id IS NULL THEN 'UNKNOWN_USER'
    WHEN m.id IS NULL THEN 'NOT_IN'
    WHEN NOT CAST(:exclude AS boolean) AND {IN_FINISHED_SAMPLE} THEN 'ALREADY_IN'
    ELSE 'LEFT' END
"""


def _list_of_users(identity: Identity, outcome: str) -> TextClause:
    """Return the statement that stores the users of the list with their expected outcomes."""
    if identity is Identity.ID:
        user_id, same_user = "r.user_id", "u.id = r.user_id"
    else:
        user_id, same_user = "u.id", "u.key = r.user_key"
    return text(f"""
INSERT INTO import_users (import_id, number, line, user_id, user_key, outcome)
SELECT :import_id, row_number() OVER (ORDER BY {user_id}, r.user_key), r.line, {user_id},
    r.user_key, CAST({outcome} AS row_outcome)
FROM import_rows r
LEFT JOIN users u ON {same_user}
LEFT JOIN memberships m ON m.segment_id = :segment_id AND m.user_id = u.id AND {NOT_EXPIRED}
LEFT JOIN exclusions e ON e.segment_id = :segment_id AND e.user_id = u.id
WHERE r.import_id = :import_id AND r.outcome IS NULL
""")


_LIST_USERS: Final = {
    (identity, removes): _list_of_users(identity, _REMOVE_OUTCOME if removes else _ADD_OUTCOME)
    for identity in Identity
    for removes in (False, True)
}

# The members by hand who are not in the list. Those in the finished sample of the rollout stay.
_PLAN_REMOVALS = text(f"""
INSERT INTO import_users
    (import_id, number, user_id, membership_id, membership_updated_at, outcome)
SELECT :import_id, :listed_users + row_number() OVER (ORDER BY m.user_id), m.user_id, m.id,
    m.updated_at,
    CAST(CASE WHEN {IN_FINISHED_SAMPLE} THEN 'ALREADY_IN' ELSE 'LEFT' END AS row_outcome)
FROM memberships m JOIN users u ON u.id = m.user_id
WHERE m.segment_id = :segment_id AND m.cause = 'MANUAL' AND {NOT_EXPIRED}
  AND NOT EXISTS (
    SELECT FROM import_users i
    WHERE i.import_id = :import_id AND i.user_id = m.user_id)
""")

_COUNTS = text("""
SELECT outcome, count(*) AS rows FROM import_rows
WHERE import_id = :import_id AND outcome IS NOT NULL GROUP BY outcome
""")

_EXPECTED_COUNTS = text("""
SELECT line IS NULL AS is_removal, outcome, count(*) AS users FROM import_users
WHERE import_id = :import_id GROUP BY 1, 2
""")

_REJECTIONS = text(f"""
SELECT line, value, CAST(outcome AS text) AS outcome, detail FROM import_rows
WHERE import_id = :import_id AND outcome IN ('MALFORMED', 'OUT_OF_RANGE')
ORDER BY line LIMIT {KEPT_REJECTIONS}
""")

_ACTIVE_MEMBERS = text(f"""
SELECT count(*) FROM memberships m WHERE m.segment_id = :segment_id AND {NOT_EXPIRED}
""")

_UNREAD = text("""
SELECT count(*) FROM import_rows WHERE import_id = :import_id AND outcome IS NULL
""")

_STORE = text(f"""
UPDATE imports SET
    status = CAST(:status AS import_status), failure = CAST(:failure AS text),
    row_count = :row_count, listed_users = :listed_users, total_users = :total_users,
    applied_users = 0, attempts = 0, file_key = NULL, removals = :removals,
    counts = CAST(CAST(:counts AS text) AS jsonb),
    rejections = CAST(CAST(:rejections AS text) AS jsonb),
    finished_at = CASE WHEN :status = 'REFUSED' THEN clock_timestamp() END,
    next_attempt_at = CASE WHEN :status = 'APPLYING' THEN clock_timestamp() END,
    deadline_at = CASE WHEN :status IN ('VALIDATED', 'HELD')
        THEN clock_timestamp() + make_interval(days => {WAIT_DAYS}) END
WHERE id = :import_id
""")


async def make_forecast(
    session: WriteSession, attempt: Attempt, record: ImportRecord
) -> ImportStatus:
    """Decide what the staged list would do, and store the forecast and the next status.

    The transaction may be long, so its session has the timeout `FORECAST_TIMEOUT_SECONDS`.

    Returns:
        The next status: REFUSED, VALIDATED, HELD or APPLYING.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    unread = await _unread(session, record)
    await session.execute(_SETTINGS, {"rows": unread})
    identity = record.options.list_format.identity
    counts = await _row_counts(session, record.import_id)
    rejected = sum(counts.get(outcome, 0) for outcome in REJECTED)
    if rejected > record.options.max_rejected:
        problem = (
            f"{rejected} rows are rejected, and `maxRejected` is {record.options.max_rejected};"
            " nothing was applied"
        )
        return await _store(session, attempt, record, _Forecast(counts, unread), refused=problem)
    column = "user_id" if identity is Identity.ID else "user_key"
    await session.execute(_MARK_DUPLICATES[column], {"import_id": record.import_id})
    counts = await _row_counts(session, record.import_id)
    forecast = await _list_users(session, record, counts)
    held = await _hold_reason(session, record, forecast)
    return await _store(session, attempt, record, forecast, held=held)


@dataclass(frozen=True, slots=True)
class _Forecast:
    counts: Mapping[RowOutcome, int]
    """The rows whose outcome is final: the header, blank, rejected and repeated rows."""
    listed_users: int
    """The different users of the list. Each has one row without a final outcome."""
    total_users: int = 0
    expected: Mapping[RowOutcome, int] = field(default_factory=dict)
    """The expected outcomes of those rows."""
    removals: int | None = None

    @property
    def rows(self) -> int:
        """The number of rows of the list."""
        return sum(self.counts.values()) + self.listed_users


async def _row_counts(session: WriteSession, import_id: int) -> dict[RowOutcome, int]:
    rows = await session.execute(_COUNTS, {"import_id": import_id})
    return {RowOutcome(row.outcome): row.rows for row in rows}


async def _unread(session: WriteSession, record: ImportRecord) -> int:
    unread: int = (await session.execute(_UNREAD, {"import_id": record.import_id})).scalar_one()
    return unread


async def _list_users(
    session: WriteSession, record: ImportRecord, counts: Mapping[RowOutcome, int]
) -> _Forecast:
    """Store the users of the list and the planned removals."""
    values = await _parameters(session, record)
    statement = _LIST_USERS[record.options.list_format.identity, record.mode is ImportMode.REMOVE]
    listed: int = (await session.execute(statement, values)).rowcount  # type: ignore[attr-defined]
    planned = 0
    if record.mode is ImportMode.REPLACE:
        result = await session.execute(_PLAN_REMOVALS, {**values, "listed_users": listed})
        planned = result.rowcount  # type: ignore[attr-defined]
    expected: dict[RowOutcome, int] = {}
    removals = 0
    for row in await session.execute(_EXPECTED_COUNTS, {"import_id": record.import_id}):
        if not row.is_removal:
            expected[RowOutcome(row.outcome)] = row.users
        if row.outcome == RowOutcome.LEFT:
            removals += row.users
    return _Forecast(counts, listed, listed + planned, expected, removals)


async def _parameters(session: WriteSession, record: ImportRecord) -> dict[str, Any]:
    segment_id = record.segment.segment_id
    sample = await read_finished_sample(session, segment_id)
    options = record.options
    return {
        "import_id": record.import_id,
        "segment_id": segment_id,
        "ttl": options.ttl,
        "expires_at": options.expires_at,
        "on_existing": options.on_existing,
        "on_excluded": options.on_excluded,
        "on_unknown_user": options.on_unknown_user,
        "exclude": options.exclude,
        **sample.parameters,
    }


async def _hold_reason(
    session: WriteSession, record: ImportRecord, forecast: _Forecast
) -> str | None:
    """Return why the removals need a confirmation; None if they do not."""
    options, removals = record.options, forecast.removals or 0
    if record.mode is ImportMode.REPLACE and not forecast.listed_users and not options.allow_empty:
        return f"the list has no user, and the segment would lose {removals} members"
    if not removals:
        return None
    values = {"segment_id": record.segment.segment_id}
    members: int = (await session.execute(_ACTIVE_MEMBERS, values)).scalar_one()
    if members < MIN_MEMBERS or removals * 100 <= options.max_removed_percent * members:
        return None
    return (
        f"the segment would lose {removals} of {members} members, more than"
        f" {options.max_removed_percent:g} percent"
    )


async def _store(
    session: WriteSession,
    attempt: Attempt,
    record: ImportRecord,
    forecast: _Forecast,
    *,
    held: str | None = None,
    refused: str | None = None,
) -> ImportStatus:
    if refused is not None:
        status = ImportStatus.REFUSED
    elif record.options.dry_run:
        status = ImportStatus.VALIDATED
    else:
        status = ImportStatus.APPLYING if held is None else ImportStatus.HELD
    # Not earlier, because the heartbeats need the lock of the import's row.
    await extend_lease(session, attempt)
    is_waiting = status in {ImportStatus.VALIDATED, ImportStatus.HELD}
    unread = {RowOutcome.NOT_REACHED: forecast.listed_users}
    counts = {**forecast.counts, **(forecast.expected if is_waiting else unread)}
    rejections = [
        [row.line, row.value or "", row.outcome, row.detail]
        for row in await session.execute(_REJECTIONS, {"import_id": record.import_id})
    ]
    await session.execute(
        _STORE,
        {
            "import_id": record.import_id,
            "status": status,
            "failure": refused or held,
            "row_count": forecast.rows,
            "listed_users": forecast.listed_users,
            "total_users": forecast.total_users,
            "removals": forecast.removals,
            "counts": counts_to_json(counts),
            "rejections": orjson.dumps(rejections).decode(),
        },
    )
    if record.file_key:
        await objects.discard(session, [record.file_key])
    if status in {ImportStatus.REFUSED, ImportStatus.HELD}:
        await record_outcome(session, record.import_id)
    if status is ImportStatus.REFUSED:
        session.after_commit(Message(FINISH_IMPORT, (record.import_id,)))
    elif status is ImportStatus.APPLYING:
        session.after_commit(Message(ADVANCE_IMPORT, (record.import_id,)))
    return status
