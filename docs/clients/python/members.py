"""Keep the members of a segment in a file. Usage: python members.py SLUG FILE

A reader of your service loads the file, or keeps the set in memory.
"""

import asyncio
import csv
import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx

from recipe import open_client
from segments_api import Client, CreateExportInput, FeedFilter, Operation, ReportStatus
from segments_api.changes import ChangesChangesEventsMembershipEvent as MembershipEvent
from segments_api.exceptions import GraphQLClientError, GraphQLClientGraphQLMultiError

WAIT_SECONDS = 30
LOST_CURSOR = {"CURSOR_EXPIRED", "FEED_RESET"}


@dataclass
class Copy:
    """The members of a segment, and the position of the change feed up to which they are exact."""

    segment_id: str
    members: set[str]
    cursor: str

    def save(self, path: Path) -> None:
        """Replace the file, so that members and cursor always match."""
        text = json.dumps([self.segment_id, sorted(self.members), self.cursor])
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)


def load(path: Path) -> Copy | None:
    if not path.exists():
        return None
    segment_id, members, cursor = json.loads(path.read_text())
    return Copy(segment_id, set(members), cursor)


async def export_members(client: Client, slug: str) -> Copy:
    """Return the members of an export, and the cursor after which the changes follow."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    request = CreateExportInput(slug=slug, waitSeconds=WAIT_SECONDS)
    while True:  # The same key waits for the same export.
        result = await client.create_export(request, headers=key, timeout=WAIT_SECONDS + 10)
        payload = result.create_export
        assert payload
        export = payload.export
        if export is None:
            raise RuntimeError(payload.errors[0].message)
        if export.status == ReportStatus.FAILED:
            raise RuntimeError("the export failed")
        if export.download_url and export.cursor:
            break
    async with httpx.AsyncClient(timeout=60) as http:
        file = (await http.get(export.download_url)).raise_for_status()
    members = {row["user_id"] for row in csv.DictReader(file.text.splitlines())}
    return Copy(export.segment.id, members, export.cursor)


async def apply_changes(client: Client, slug: str, copy: Copy) -> None:
    """Wait for the next changes, at most 30 seconds, and apply them."""
    result = await client.changes(
        copy.cursor, FeedFilter(slugs=[slug]), WAIT_SECONDS, timeout=WAIT_SECONDS + 10
    )
    batch = result.changes
    assert batch
    for event in batch.events:
        if not isinstance(event, MembershipEvent):  # an event of a later version
            continue
        if event.entry.segment.id != copy.segment_id:  # a later segment with the same slug
            continue
        if event.entry.operation == Operation.JOINED:
            copy.members.add(event.entry.user_id)
        elif event.entry.operation == Operation.LEFT:
            copy.members.discard(event.entry.user_id)
    copy.cursor = batch.cursor


async def follow(client: Client, slug: str, path: Path) -> None:
    copy = load(path)
    while True:
        try:
            if copy is None:
                copy = await export_members(client, slug)
            else:
                await apply_changes(client, slug, copy)
        except GraphQLClientGraphQLMultiError as failure:
            codes = {(error.extensions or {}).get("code") for error in failure.errors}
            if not codes & LOST_CURSOR:
                raise
            copy = None
        except (httpx.HTTPError, GraphQLClientError, RuntimeError) as error:
            print(error, file=sys.stderr, flush=True)
            await asyncio.sleep(1)
        else:
            copy.save(path)
            print(len(copy.members), flush=True)


async def main(slug: str, path: Path) -> None:
    async with open_client() as client:
        await follow(client, slug, path)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
