"""GraphQL operations on exports, and the files of exports."""

import csv
import io
from typing import Any

import httpx

from tests.conftest import Api
from tests.operations import ERRORS

EXPORT = """
id segment { slug } status rowCount sizeBytes asOf cursor createdAt finishedAt failure fileName
downloadUrl
"""

CREATE_EXPORT = f"""
mutation Create($input: CreateExportInput!) {{
  createExport(input: $input) {{ export {{ {EXPORT} }} {ERRORS} }}
}}
"""


async def create_export(api: Api, slug: str = "a", **fields: Any) -> Any:
    """Send `createExport`, by default without waiting, and return its payload."""
    variables = {"slug": slug, "waitSeconds": 0, **fields}
    return (await api(CREATE_EXPORT, input=variables))["createExport"]


async def export(api: Api, export_id: str) -> Any:
    query = f"query Export($id: ID!) {{ export(id: $id) {{ {EXPORT} }} }}"
    return (await api(query, id=export_id))["export"]


def number(export_id: str) -> int:
    """Return the row's number in an opaque id."""
    return int(export_id.removeprefix("exp_"))


async def download(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        # httpx would decompress a body with the header Content-Encoding, which files do not have.
        response = await client.get(url)
    assert response.status_code == 200, response.text
    assert "Content-Encoding" not in response.headers
    return response


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def user_ids(text: str) -> list[int]:
    return [int(row["user_id"]) for row in rows(text)]
