"""How many members an import may remove without a confirmation, while it is applied."""

from segmentql.adapters.sessions import WriteSession
from segmentql.imports.forecast import MIN_MEMBERS
from segmentql.imports.forecast_query import ACTIVE_MEMBERS
from segmentql.imports.records import ImportRecord


async def max_removals(session: WriteSession, record: ImportRecord, removed: int) -> int:
    """Return the maximum number of removals by `maxRemovedPercent`.

    Args:
        session: The session.
        record: The import.
        removed: The number of members that the import has removed. The percentage includes them.
    """
    values = {"segment_id": record.segment.segment_id}
    members: int = (await session.execute(ACTIVE_MEMBERS, values)).scalar_one() + removed
    if members < MIN_MEMBERS:
        return members
    return int(members * record.options.max_removed_percent / 100)
