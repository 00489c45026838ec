"""Batched reads of reports, and the poller that waits for finished ones."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.polling import Poller
from segmentql.reports import service
from segmentql.reports.records import ReportRecord


class ReportById(Loader[int, ReportRecord | None]):
    """A report by id; None if it does not exist or was removed."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, ReportRecord]:
        return await service.reports_by_id(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class FinishedReport(Poller[int, ReportRecord]):
    """A report by id, when it is READY or FAILED."""

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, ReportRecord]:
        reports = await service.reports_by_id(session, keys)
        return {report_id: report for report_id, report in reports.items() if report.finished_at}
