"""Requests for reports, attempts to make them, and the objects of the store."""

from typing import Any

from segmentql.adapters.storage import Storage
from segmentql.csv_files import attempts
from segmentql.csv_files.generation import FileContext
from segmentql.reports.file_kind import REPORT_FILES
from segmentql.reports.records import ReportScope
from tests.conftest import Api, Sql
from tests.reports.queries import create_report


async def request_report(api: Api) -> None:
    assert (await create_report(api, year=2024, month=3))["errors"] == []


async def claim(context: FileContext) -> attempts.Attempt[ReportScope] | None:
    """Claim the report 1."""
    return await context.database.transaction(
        lambda session: attempts.claim(session, REPORT_FILES, 1)
    )


async def row(sql: Sql) -> Any:
    return await sql.fetchrow("SELECT * FROM reports")


async def keys(storage: Storage) -> set[str]:
    """Return the keys of the store, which include other reports of the test run."""
    client = await storage._s3.client()
    listed = await client.list_objects_v2(Bucket=storage._bucket)
    return {item["Key"] for item in listed.get("Contents", [])}


def misconfigured_store(report_context: FileContext, **changes: Any) -> Storage:
    """Return the store with settings that differ from those of the report context."""
    settings = report_context.database._settings
    return Storage(settings.model_copy(update=changes))
