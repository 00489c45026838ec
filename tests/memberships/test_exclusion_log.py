"""Exclusions and their log record the API key that excluded or admitted a user."""

from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.memberships.actors import expire_due_memberships, record_segment_leaves
from tests.back_dating import HOUR, NOON, all_rows, insert_membership
from tests.conftest import Sql
from tests.keys.clients import KeyClient
from tests.memberships.recorded_authors import by, exclusion_authors, exclusion_log
from tests.operations import delete_segment, delete_user, make_segments, update_user_segments


async def test_exclusion_and_admission_record_who_and_when(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7, add=["A"])
    await update_user_segments(ada, 7, remove=["A"])
    excluded_at = await sql.fetchval("SELECT excluded_at FROM exclusions")
    assert await exclusion_authors(sql) == [(7, *by(ada, "ada"), None)]
    await update_user_segments(bob, 7, add=["A"])
    assert await exclusion_authors(sql) == []
    assert await exclusion_log(sql) == [
        (7, "A", "EXCLUDED", *by(ada, "ada"), None),
        (7, "A", "ADMITTED", *by(bob, "bob"), None),
    ]
    ats: list[datetime] = [
        r["at"] for r in await sql.fetch("SELECT at FROM exclusion_log ORDER BY at")
    ]
    left_at, rejoined_at = [
        row["at"] for row in await sql.fetch("SELECT at FROM history ORDER BY position OFFSET 1")
    ]
    assert ats == [excluded_at, rejoined_at]
    assert excluded_at == left_at


async def test_repeated_removal_keeps_the_first_exclusion(
    sql: Sql, ada: KeyClient, bob: KeyClient
) -> None:
    await make_segments(ada, "A")
    await update_user_segments(ada, 7, remove=["A"])
    await update_user_segments(bob, 7, remove=["A"])
    assert await exclusion_authors(sql) == [(7, *by(ada, "ada"), None)]
    assert await exclusion_log(sql) == [(7, "A", "EXCLUDED", *by(ada, "ada"), None)]


async def test_adding_a_user_without_an_exclusion_logs_no_admission(
    sql: Sql, ada: KeyClient
) -> None:
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, remove=["B"])
    await update_user_segments(ada, 7, add=["A"])
    assert await exclusion_log(sql) == [(7, "B", "EXCLUDED", *by(ada, "ada"), None)]


async def test_deletion_of_the_user_or_segment_logs_no_admission(
    sql: Sql, database: Database, ada: KeyClient
) -> None:
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, remove=["A", "B"])
    await update_user_segments(ada, 8, remove=["A", "B"])
    logged = await exclusion_log(sql)
    assert len(logged) == 4
    await delete_user(ada, 7)
    await delete_segment(ada, "A")
    await record_segment_leaves(database, 1)
    remaining = await sql.fetch("SELECT user_id, segment_id FROM exclusions")
    assert [tuple(row) for row in remaining] == [(8, 2)]
    assert await exclusion_log(sql) == logged


async def test_expiry_of_a_membership_logs_no_exclusion(
    sql: Sql, database: Database, ada: KeyClient
) -> None:
    await make_segments(ada, "A")
    await insert_membership(sql, 7, "A", expires_at=NOON + HOUR)
    await expire_due_memberships(database)
    assert await exclusion_log(sql) == []


@pytest.mark.parametrize(
    "change",
    [
        {"add": ["A"], "remove": ["NOPE"]},
        {"add": ["A"], "remove": ["A"]},
        {"add": ["NOPE"], "remove": ["B"]},
        {"add": ["A"], "ttlSeconds": 0},
    ],
)
async def test_rejected_change_records_nothing(
    sql: Sql, ada: KeyClient, change: dict[str, Any]
) -> None:
    await make_segments(ada, "A", "B")
    await update_user_segments(ada, 7, remove=["A"], add=["B"])
    before = {**await all_rows(sql), "api_keys": []}
    assert (await update_user_segments(ada, 7, **change))["errors"] != []
    assert (await update_user_segments(ada, 8, **change))["errors"] != []
    assert {**await all_rows(sql), "api_keys": []} == before
