"""Batched reads of exports, and the poller that waits for finished ones."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.exports import service
from segmentql.exports.records import ExportRecord
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.polling import Poller


class ExportById(Loader[int, ExportRecord | None]):
    """An export by id; None if it does not exist or was removed."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, ExportRecord]:
        return await service.exports_by_id(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class FinishedExport(Poller[int, ExportRecord]):
    """An export by id, when it is READY or FAILED."""

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, ExportRecord]:
        exports = await service.exports_by_id(session, keys)
        return {export_id: export for export_id, export in exports.items() if export.finished_at}
