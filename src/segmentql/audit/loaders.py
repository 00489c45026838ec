"""Batched reads of the audit log."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.audit import service
from segmentql.audit.records import AuditEntryRecord, AuditPage
from segmentql.graphql.types.dataloader import Loader


class AuditPages(Loader[AuditPage, list[AuditEntryRecord]]):
    """A page of the audit log, newest first."""

    max_keys = 100

    async def load_batch(
        self, session: ReadSession, keys: Sequence[AuditPage]
    ) -> Mapping[AuditPage, list[AuditEntryRecord]]:
        return await service.audit_pages(session, keys)

    def on_missing(self, key: AuditPage) -> list[AuditEntryRecord]:
        return []
