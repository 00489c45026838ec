"""The forecast of an import: the users of its list, their expected outcomes, and the safeguards.

After the list is staged, one transaction marks repeated users. Another one numbers the different
users of the list in the order of their ids, and plans the removals of REPLACE. The expected
outcomes are the counts of a dry run. When the import is applied, each outcome is decided again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from segmentql.adapters.jobs import Message
from segmentql.adapters.sessions import WriteSession
from segmentql.imports import forecast_query
from segmentql.imports.attempts import Attempt, extend_lease
from segmentql.imports.audit_entries import audit_status
from segmentql.imports.file_format import Identity
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.records import REJECTED, ImportMode, ImportRecord
from segmentql.imports.stored_json import counts_to_json
from segmentql.objects import service as objects
from segmentql.rollouts.finished_sample import read_finished_sample
from segmentql.tables import ImportStatus, RowOutcome

FORECAST_TIMEOUT_SECONDS: Final = 1800
"""The time limit of each statement of the forecast."""

ERASED: Final = "The reason was erased with the key of a user."

MIN_MEMBERS: Final = 100
"""The number of members from which on `maxRemovedPercent` applies."""


async def mark_duplicates(session: WriteSession, record: ImportRecord) -> None:
    """Mark the repeated users of a staged list, unless its rejected rows refuse it.

    It is a transaction of its own, before the forecast: it locks rows that an erasure of keys also
    locks, and the forecast waits for erasures. The session has the timeout
    `FORECAST_TIMEOUT_SECONDS`.
    """
    await session.execute(forecast_query.SETTINGS)
    await _set_nested_loops(session, "off")
    if _rejected_rows(await _row_counts(session, record.import_id)) <= record.options.max_rejected:
        identity = record.options.list_format.identity
        statement = forecast_query.MARK_DUPLICATES[
            "user_id" if identity is Identity.ID else "user_key"
        ]
        await session.execute(statement, {"import_id": record.import_id})


async def make_forecast(
    session: WriteSession, attempt: Attempt, record: ImportRecord
) -> ImportStatus:
    """Decide what the staged list would do, and store the forecast and the next status.

    `mark_duplicates` has marked the repeated users. The transaction may be long, so its session has
    the timeout `FORECAST_TIMEOUT_SECONDS`.

    Returns:
        The next status: REFUSED, VALIDATED, HELD or APPLYING.

    Raises:
        LeaseLost: the attempt does not hold the lease any more.
    """
    open_rows = await _count_open_rows(session, record)
    await session.execute(forecast_query.SETTINGS)
    counts = await _row_counts(session, record.import_id)
    rejected = _rejected_rows(counts)
    if rejected > record.options.max_rejected:
        problem = (
            f"{rejected} rows are rejected, and `maxRejected` is {record.options.max_rejected};"
            " nothing was applied"
        )
        return await _store(session, attempt, record, _Forecast(counts, open_rows), refused=problem)
    await _set_nested_loops(session, "on" if open_rows < forecast_query.MANY_ROWS else "off")
    forecast = await _list_users(session, record, counts)
    held = await _hold_reason(session, record, forecast)
    return await _store(session, attempt, record, forecast, held=held)


def _rejected_rows(counts: Mapping[RowOutcome, int]) -> int:
    return sum(counts.get(outcome, 0) for outcome in REJECTED)


async def _set_nested_loops(session: WriteSession, value: Literal["on", "off"]) -> None:
    await session.execute(forecast_query.SET_NESTED_LOOPS, {"value": value})


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
    rows = await session.execute(forecast_query.COUNTS, {"import_id": import_id})
    return {RowOutcome(row.outcome): row.rows for row in rows}


async def _count_open_rows(session: WriteSession, record: ImportRecord) -> int:
    rows: int = (
        await session.execute(forecast_query.COUNT_OPEN_ROWS, {"import_id": record.import_id})
    ).scalar_one()
    return rows


async def _list_users(
    session: WriteSession, record: ImportRecord, counts: Mapping[RowOutcome, int]
) -> _Forecast:
    """Store the users of the list and the planned removals."""
    values = await _parameters(session, record)
    statement = forecast_query.LIST_USERS[
        record.options.list_format.identity, record.mode is ImportMode.REMOVE
    ]
    listed = await session.count_affected(statement, values)
    planned = 0
    if record.mode is ImportMode.REPLACE:
        planned = await session.count_affected(
            forecast_query.PLAN_REMOVALS, {**values, "listed_users": listed}
        )
    expected: dict[RowOutcome, int] = {}
    removals = 0
    for row in await session.execute(
        forecast_query.EXPECTED_COUNTS, {"import_id": record.import_id}
    ):
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
    members: int = (await session.execute(forecast_query.ACTIVE_MEMBERS, values)).scalar_one()
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
    is_waiting = status in {ImportStatus.VALIDATED, ImportStatus.HELD}
    unread = {RowOutcome.NOT_REACHED: forecast.listed_users}
    counts = {**forecast.counts, **(forecast.expected if is_waiting else unread)}
    rejections = [
        [row.line, row.value or "", row.outcome, row.detail or ERASED]
        for row in await session.execute(forecast_query.REJECTIONS, {"import_id": record.import_id})
    ]
    if record.options.list_format.identity is Identity.KEY:
        await session.execute(forecast_query.LOCK_ERASURES)
        await _set_nested_loops(session, "off")
        await session.execute(forecast_query.DROP_ERASED_KEYS, {"import_id": record.import_id})
    # Not earlier, because the heartbeats need the lock of the import's row.
    await extend_lease(session, attempt)
    await session.execute(
        forecast_query.STORE,
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
        await audit_status(session, record.import_id)
    if status is ImportStatus.REFUSED:
        session.after_commit(Message(FINISH_IMPORT, (record.import_id,)))
    elif status is ImportStatus.APPLYING:
        session.after_commit(Message(ADVANCE_IMPORT, (record.import_id,)))
    return status
