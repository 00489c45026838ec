"""Batched reads of reports, and how whoever asked for one learns that it is over."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segmentql.adapters.database import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.polling import Poller
from segmentql.reports import service

if TYPE_CHECKING:
    from segmentql.reports.api import Report


class ReportById(Loader[int, "Report | None"]):
    """A report by its number; None where there is none, or it is not kept any more."""

    async def load_batch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, Report]":
        return await _reports(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class ReportFinished(Poller[int, "Report"]):
    """A report by its number, once it is READY or FAILED."""

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, Report]":
        reports = await _reports(session, keys)
        return {number: report for number, report in reports.items() if report.finished_at}


async def _reports(session: ReadSession, numbers: Sequence[int]) -> "dict[int, Report]":
    from segmentql.reports.api import Report  # noqa: PLC0415 - it waits by these

    rows = await service.reports_by_id(session, numbers)
    return {number: Report.from_row(row) for number, row in rows.items()}
