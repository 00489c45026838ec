"""Batched reads of reports."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from segmentql.adapters.database import ReadSession
from segmentql.graphql.batching import Loader
from segmentql.reports import service

if TYPE_CHECKING:
    from segmentql.reports.api import Report


class ReportById(Loader[int, "Report | None"]):
    """A report by its number; None where there is none, or it is not kept any more."""

    async def fetch(self, session: ReadSession, keys: Sequence[int]) -> "Mapping[int, Report]":
        from segmentql.reports.api import Report  # noqa: PLC0415 - it waits by this

        rows = await service.reports_by_id(session, keys)
        return {number: Report.from_row(row) for number, row in rows.items()}

    def absent(self, key: int) -> None:
        return None
