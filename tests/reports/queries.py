"""GraphQL operations on reports."""

from typing import Any

from tests.conftest import Api
from tests.operations import ERRORS

REPORT = """
id userId user { id } year month status rowCount sizeBytes createdAt finishedAt failure fileName
downloadUrl
"""

CREATE_REPORT = f"""
mutation Create($input: CreateReportInput!) {{
  createReport(input: $input) {{ report {{ {REPORT} }} {ERRORS} }}
}}
"""


async def create_report(api: Api, **fields: Any) -> Any:
    """Send `createReport`, by default without waiting, and return its payload."""
    variables = {"waitSeconds": 0, **fields}
    return (await api(CREATE_REPORT, input=variables))["createReport"]


async def report(api: Api, report_id: str) -> Any:
    query = f"query Report($id: ID!) {{ report(id: $id) {{ {REPORT} }} }}"
    return (await api(query, id=report_id))["report"]


def number(report_id: str) -> int:
    """Return the row's number in an opaque id."""
    return int(report_id.removeprefix("rep_"))
