"""The file of an export, and then the changes after its cursor, lead to the members of now."""

import random

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from tests.conftest import Api, Sql
from tests.exports.queries import create_export, download, export, number, user_ids
from tests.feed.queries import all_changes
from tests.operations import make_segments, update_segment_members
from tests.timeline import database_now


@pytest.mark.parametrize("time", ["now", "past"])
async def test_export_and_changes_from_its_cursor_converge_to_the_members(
    feed_api: Api, sql: Sql, database: Database, storage: Storage, time: str
) -> None:
    await make_segments(feed_api, "a", "b")
    dice = random.Random(1)  # noqa: S311 - the same changes each time

    async def change(times: int) -> None:
        for _ in range(times):
            users = dice.sample(range(1, 30), 10)
            await update_segment_members(feed_api, "a", add=users[:5], remove=users[5:])
            await update_segment_members(feed_api, "b", add=users[5:], remove=users[:5])

    await change(5)
    as_of = (await database_now(sql)).isoformat() if time == "past" else None
    if time == "past":
        await change(5)
    created = (await create_export(feed_api, "a", asOf=as_of))["export"]
    await change(3)
    await make_export(FileContext(database, storage, retention_days=30), number(created["id"]))
    await feed_api("mutation { deleteUser(input: {id: 5}) { errors { message } } }")
    ready = await export(feed_api, created["id"])
    members = set(map(str, user_ids((await download(ready["downloadUrl"])).text)))
    entries = await all_changes(feed_api, ready["cursor"], first=7, filter={"slugs": ["a"]})
    for entry in entries:
        (members.add if entry["operation"] == "JOINED" else members.discard)(entry["userId"])
    rows = await sql.fetch("SELECT user_id FROM memberships WHERE segment_id = 1")
    assert members == {str(row["user_id"]) for row in rows}
    assert len(entries) > 10
