"""Reports on all users exist for ADMIN alone."""

import asyncio

import pytest

from segmentql.adapters.database import Database
from tests.conftest import Api, Sql
from tests.keys.clients import make_key, query_data

FILL = """
INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
SELECT CASE WHEN n % 3 = 0 THEN 7 END, 2024, 3, 'QUEUED', now(), now()
FROM generate_series(1, 12) AS n
"""
OF_SINGLE_USERS = ["rep_12", "rep_9", "rep_6", "rep_3"]


@pytest.mark.parametrize("role", ["READER", "EDITOR", "ADMIN"])
async def test_one_on_all_users_is_there_for_admin_alone(
    keyed: Api, database: Database, sql: Sql, role: str
) -> None:
    await sql.execute(FILL)
    key = await make_key(database, role)
    found = await query_data(
        keyed, key, '{ a: report(id: "rep_1") { id } b: report(id: "rep_3") { id } }'
    )
    assert found == {"a": {"id": "rep_1"} if role == "ADMIN" else None, "b": {"id": "rep_3"}}


@pytest.mark.parametrize("role", ["READER", "EDITOR", "ADMIN"])
async def test_pages_are_full_of_what_the_role_may_see(
    keyed: Api, database: Database, sql: Sql, role: str
) -> None:
    await sql.execute(FILL)
    key = await make_key(database, role)
    query = """query($after: String) { reports(first: 2, after: $after) {
      nodes { id } pageInfo { endCursor hasNextPage } } }"""
    seen, after, pages, more = [], None, 0, True
    while more:
        page = (await query_data(keyed, key, query, after=after))["reports"]
        seen += [node["id"] for node in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        pages += 1
    every = [f"rep_{number}" for number in range(12, 0, -1)]
    assert seen == (every if role == "ADMIN" else OF_SINGLE_USERS)
    assert pages == (6 if role == "ADMIN" else 2)


async def test_a_users_own_reports_are_for_every_role(
    keyed: Api, database: Database, sql: Sql
) -> None:
    await sql.execute(FILL)
    key = await make_key(database, "READER")
    found = await query_data(keyed, key, "{ reports(userId: 7) { nodes { id userId } } }")
    assert found["reports"]["nodes"] == [
        {"id": report_id, "userId": "7"} for report_id in OF_SINGLE_USERS
    ]


async def test_who_asks_beside_an_admin_gets_an_answer_of_their_own(
    keyed: Api, database: Database, sql: Sql
) -> None:
    """Both are answered by one statement, whose answer must not depend on who asks."""
    await sql.execute(FILL)
    keys = [await make_key(database, role) for role in ("ADMIN", "READER")]
    query = '{ report(id: "rep_1") { id } }'
    for _ in range(5):
        found = await asyncio.gather(*(query_data(keyed, key, query) for key in keys))
        assert found == [{"report": {"id": "rep_1"}}, {"report": None}]
