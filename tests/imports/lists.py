"""A client of imports: it uploads lists and runs the steps of workers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from segmentql.adapters.jobs import Message
from segmentql.imports.actors import (
    ImportContext,
    advance_import,
    filter_import_result,
    finish_import,
)
from segmentql.imports.jobs import ADVANCE_IMPORT, FINISH_IMPORT
from segmentql.imports.result import outcome_mask
from segmentql.tables import RowOutcome
from tests.conftest import Api
from tests.operations import ERRORS

IMPORT = """
id mode status progress counts { outcome count } rows removals failure actor createdAt finishedAt
rejections { line value reason message } resultUrl segment { slug }
"""

CREATE = f"""
mutation Create($input: CreateImportInput!) {{
  createImport(input: $input) {{
    import {{ {IMPORT} }} upload {{ url method headers {{ name value }} expiresAt }} {ERRORS}
  }}
}}
"""
START = f"""
mutation Start($input: StartImportInput!) {{
  startImport(input: $input) {{
    import {{ {IMPORT} }} {ERRORS}
  }}
}}
"""
APPLY = f"""
mutation Apply($input: ApplyImportInput!) {{
  applyImport(input: $input) {{
    import {{ {IMPORT} }} {ERRORS}
  }}
}}
"""
CANCEL = f"""
mutation Cancel($input: CancelImportInput!) {{
  cancelImport(input: $input) {{
    import {{ {IMPORT} }} {ERRORS}
  }}
}}
"""
READ = f"query Read($id: ID!) {{ import(id: $id) {{ {IMPORT} }} }}"


def counts(record: Any) -> dict[str, int]:
    """Return the counts of an import by outcome."""
    return {item["outcome"]: item["count"] for item in record["counts"]}


async def put(upload: Any, data: bytes) -> httpx.Response:
    """Upload a file as `upload` says."""
    headers = {header["name"]: header["value"] for header in upload["headers"]}
    async with httpx.AsyncClient() as client:
        return await client.request(upload["method"], upload["url"], content=data, headers=headers)


@dataclass
class Imports:
    """A client of imports and the worker that carries them out."""

    api: Api
    context: ImportContext
    sent: list[Message]

    async def create(self, data: bytes, **fields: Any) -> Any:
        """Create an import and upload its file; return the import."""
        source = {"upload": {"sizeBytes": len(data)}}
        payload = await self.send(CREATE, **{"slug": "a", "source": source, **fields})
        assert payload["errors"] == []
        response = await put(payload["upload"], data)
        assert response.status_code == 200, response.text
        return payload["import"]

    async def send(self, mutation: str, **fields: Any) -> Any:
        """Send a mutation; return its payload."""
        ((payload,),) = [(await self.api(mutation, input=fields)).values()]
        return payload

    async def start(self, data: bytes, **fields: Any) -> Any:
        """Create and start an import; return the import."""
        created = await self.create(data, **fields)
        payload = await self.send(START, id=created["id"])
        assert payload["errors"] == []
        return payload["import"]

    async def run(self, data: bytes, **fields: Any) -> Any:
        """Create and start an import, and run its steps; return the import."""
        started = await self.start(data, **fields)
        await self.work(started["id"])
        return await self.read(started["id"])

    async def read(self, import_id: str) -> Any:
        return (await self.api(READ, id=import_id))["import"]

    async def work(self, import_id: str) -> None:
        """Carry out an import as a worker does."""
        number = int(import_id.removeprefix("imp_"))
        await advance_import(self.context, number)
        while any(message.job == ADVANCE_IMPORT for message in self.sent):
            self.sent[:] = [m for m in self.sent if m.job != ADVANCE_IMPORT]
            await advance_import(self.context, number)
        if any(message.job == FINISH_IMPORT for message in self.sent):
            self.sent[:] = [m for m in self.sent if m.job != FINISH_IMPORT]
            await self.finish(import_id)

    async def finish(self, import_id: str) -> None:
        """Make the result of a finished import."""
        await finish_import(self.context, int(import_id.removeprefix("imp_")))

    async def filter(self, import_id: str, outcomes: list[str]) -> str | None:
        """Return a link to the rows with the outcomes, after a worker has made the file."""
        query = """
        query Read($id: ID!, $outcomes: [RowOutcome!]) {
          import(id: $id) { resultUrl(outcomes: $outcomes) }
        }
        """
        read = await self.api(query, id=import_id, outcomes=outcomes)
        assert read["import"]["resultUrl"] is None
        occurring = counts(await self.read(import_id))
        mask = mask_of([outcome for outcome in outcomes if outcome in occurring])
        await filter_import_result(self.context, int(import_id.removeprefix("imp_")), mask)
        url: str | None = (await self.api(query, id=import_id, outcomes=outcomes))["import"][
            "resultUrl"
        ]
        return url


def mask_of(outcomes: list[str]) -> int:
    return outcome_mask([RowOutcome(outcome) for outcome in outcomes])


async def download(url: str) -> str:
    async with httpx.AsyncClient() as client:
        response = await client.get(url)
    assert response.status_code == 200, response.text
    return response.text


async def lines_of_result(record: Any) -> list[str]:
    """Return the lines of the result of a finished import, without the header."""
    header, *lines = (await download(record["resultUrl"])).splitlines()
    assert header == "line,value,user_id,outcome,detail"
    return lines


def id_list(user_ids: Iterable[int]) -> bytes:
    """Return a file with one id in each line."""
    return "".join(f"{user_id}\n" for user_id in user_ids).encode()
