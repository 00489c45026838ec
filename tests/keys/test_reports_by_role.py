"""Only ADMIN may read reports on all users."""

import asyncio

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Api, Sql
from tests.keys.clients import make_key, query_data

INSERT_REPORTS = """
INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
SELECT CASE WHEN n % 3 = 0 THEN 7 END, 2024, 3, 'QUEUED', now(), now()
FROM generate_series(1, 12) AS n
"""
SINGLE_USER_REPORTS = ["rep_12", "rep_9", "rep_6", "rep_3"]


@pytest.mark.parametrize("role", ["READER", "EDITOR", "ADMIN"])
async def test_report_on_all_users_is_visible_to_admin_only(
    auth_api: Api, database: Database, sql: Sql, role: str
) -> None:
    await sql.execute(INSERT_REPORTS)
    key = await make_key(database, role)
    result = await query_data(
        auth_api, key, '{ a: report(id: "rep_1") { id } b: report(id: "rep_3") { id } }'
    )
    assert result == {"a": {"id": "rep_1"} if role == "ADMIN" else None, "b": {"id": "rep_3"}}


@pytest.mark.parametrize("role", ["READER", "EDITOR", "ADMIN"])
async def test_pages_are_filled_with_reports_visible_to_the_role(
    auth_api: Api, database: Database, sql: Sql, role: str
) -> None:
    await sql.execute(INSERT_REPORTS)
    key = await make_key(database, role)
    query = """query($after: String) { reports(first: 2, after: $after) {
      nodes { id } pageInfo { endCursor hasNextPage } } }"""
    listed_ids, after, pages, has_more = [], None, 0, True
    while has_more:
        page = (await query_data(auth_api, key, query, after=after))["reports"]
        listed_ids += [node["id"] for node in page["nodes"]]
        after, has_more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        pages += 1
    all_ids = [f"rep_{number}" for number in range(12, 0, -1)]
    assert listed_ids == (all_ids if role == "ADMIN" else SINGLE_USER_REPORTS)
    assert pages == (6 if role == "ADMIN" else 2)


async def test_reports_on_one_user_are_visible_to_every_role(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    await sql.execute(INSERT_REPORTS)
    key = await make_key(database, "READER")
    result = await query_data(auth_api, key, "{ reports(userId: 7) { nodes { id userId } } }")
    assert result["reports"]["nodes"] == [
        {"id": report_id, "userId": "7"} for report_id in SINGLE_USER_REPORTS
    ]


async def test_concurrent_callers_get_results_of_their_own_role(
    auth_api: Api, database: Database, sql: Sql
) -> None:
    """One statement serves both callers, and its result must not depend on the caller."""
    await sql.execute(INSERT_REPORTS)
    keys = [await make_key(database, role) for role in ("ADMIN", "READER")]
    query = '{ report(id: "rep_1") { id } }'
    for _ in range(5):
        result = await asyncio.gather(*(query_data(auth_api, key, query) for key in keys))
        assert result == [{"report": {"id": "rep_1"}}, {"report": None}]
