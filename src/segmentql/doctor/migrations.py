"""The check that this version works on the schema of a database."""

from sqlalchemy.ext.asyncio import AsyncConnection

from segmentql.adapters.revisions import check_schema, newest_revision
from segmentql.doctor.findings import Finding, Verdict
from segmentql.errors import SchemaMismatch


async def migrations_finding(check: str, connection: AsyncConnection) -> Finding:
    """Return the finding for the schema's revision.

    Its verdict is `FAILED` if this version cannot start on the schema.
    """
    try:
        newer = await check_schema(connection)
    except SchemaMismatch as error:
        return Finding(check, Verdict.FAILED, f"at {error.state}", error.remedy)
    if newer:
        return Finding(check, Verdict.WARNING, f"at {newer}", "update SegmentQL soon")
    return Finding(check, Verdict.OK, f"at {newest_revision()}, the newest")
