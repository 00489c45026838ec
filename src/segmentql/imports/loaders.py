"""Batched reads of imports, and the poller that waits for them."""

from collections.abc import Mapping, Sequence

from segmentql.adapters.sessions import ReadSession
from segmentql.graphql.types.dataloader import Loader
from segmentql.graphql.types.polling import Poller
from segmentql.imports import reads
from segmentql.imports.records import FINISHED, ImportRecord
from segmentql.tables import ImportStatus


class ImportById(Loader[int, ImportRecord | None]):
    """An import by id; None if it does not exist."""

    async def load_batch(
        self, session: ReadSession, keys: Sequence[int]
    ) -> Mapping[int, ImportRecord]:
        return await reads.imports_by_id(session, keys)

    def on_missing(self, key: int) -> None:
        return None


class StoppedImport(Poller[int, ImportRecord]):
    """An import by id, when it is finished, VALIDATED or HELD."""

    async def poll(self, session: ReadSession, keys: Sequence[int]) -> Mapping[int, ImportRecord]:
        stopped = {*FINISHED, ImportStatus.VALIDATED, ImportStatus.HELD}
        imports = await reads.imports_by_id(session, keys)
        return {key: record for key, record in imports.items() if record.status in stopped}
