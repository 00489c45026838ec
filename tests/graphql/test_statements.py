"""The number of SQL statements of a query does not depend on the number of rows."""

import pytest

from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql, recorded_statements
from tests.operations import make_segments, update_user_segments
from tests.rollouts.graphql_client import set_rollout

USERS = "ids: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99]"
KEYS = 'keys: ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k10", "k99"]'
QUERIES = {
    "{ users { nodes { id createdAt } edges { cursor } } }": 1,
    "{ users { nodes { segments { slug } } } }": 2,
    "{ users { nodes { segments { slug } memberships { id user { id } } } } }": 3,
    "{ users { nodes { history { nodes { id } } } } }": 2,
    "{ user(id: 1) { segments { slug } } }": 1,
    "{ user(id: 1) { ...f } } fragment f on User { ... { mine: segments { slug } } }": 1,
    '{ user(id: 1) { id segments { slug } isIn(slug: "S1") } }': 2,
    "{ a: user(id: 1) { id segments { id } } b: user(id: 2) { segments { name } } }": 1,
    f"{{ usersById({USERS}) {{ id }} }}": 1,
    f"{{ usersById({USERS}) {{ segments {{ slug }} }} }}": 1,
    f"{{ usersById({USERS}) {{ segments {{ slug memberCount }} }} }}": 2,
    f'{{ usersById({USERS}) {{ isIn(slug: "S1") }} }}': 2,
    f'{{ usersById({USERS}) {{ a: isIn(slug: "S1") b: isIn(slug: "S2") }} }}': 2,
    f'{{ usersById({USERS}) {{ isExcluded(slug: "S1") }} }}': 2,
    f"""{{ usersById({USERS}) {{
        a: membership(slug: "S1") {{ id user {{ id }} segment {{ slug }} }}
        b: membership(slug: "S2") {{ id }} }} }}""": 2,
    '{ user(id: 1) { membership(slug: "not a slug") { id } } }': 1,
    f'{{ usersById({USERS}) {{ segments(asOf: "2024-03-01T12:30:00Z") {{ slug }} }} }}': 2,
    f"""{{ usersById({USERS}) {{
        segments {{ slug }}
        memberships {{ joinedAt user {{ id }} segment {{ memberCount members(first: 3) {{
          nodes {{ user {{ id }} }}
        }} }} }}
        isIn(slug: "S1")
        isExcluded(slug: "S1")
        history(first: 5) {{ nodes {{ at user {{ id }} segment {{ slug }} }} }}
    }} }}""": 8,
    '{ userByKey(key: "k1") { key segments { slug } } }': 1,
    f"{{ usersByKey({KEYS}) {{ id }} }}": 1,
    f"{{ usersByKey({KEYS}) {{ segments {{ slug }} }} }}": 1,
    f"{{ usersByKey({KEYS}) {{ segments {{ slug memberCount }} }} }}": 2,
    "{ node(id: 1) { id } }": 1,
    "{ node(id: 1) { ... on User { key segments { slug } } ... on Segment { memberCount } } }": 2,
    "{ a: node(id: 1) { id } b: node(id: 2) { id } c: user(id: 3) { id } }": 1,
    '{ a: node(id: "seg_1") { id } b: node(id: "seg_2") { ... on Segment { slug } } }': 1,
    "{ segments { nodes { slug } } }": 1,
    "{ segments { nodes { memberCount } } }": 2,
    '{ segments { nodes { memberCount(asOf: "2024-03-01T12:30:00Z") } } }': 2,
    """{ segments { nodes { memberCounts(
        from: "2024-03-01T12:00:00Z", to: "2024-03-02T12:00:00Z") { at count } } } }""": 2,
    "{ segments { nodes { rollout { status enrolled excluded stages { percent } } } } }": 3,
    "{ segments { nodes { members { nodes { user { id createdAt } segment { slug } } } } } }": 2,
    "{ segments { nodes { members { nodes { user { segments { slug } } } } } } }": 3,
    '{ segment(slug: "S1") { memberCount members { nodes { user { id } } } } }': 3,
    "{ history { nodes { userId operation segment { slug } } } }": 1,
    "{ history { nodes { userId userKey } } }": 2,
    "{ users { nodes { history { nodes { id userKey } } } } }": 3,
    "{ history { nodes { user { id } segment { memberCount } } } }": 3,
    '{ history { nodes { user { segments { slug } isIn(slug: "S2") } } } }': 4,
    "{ reports { nodes { status user { id } } } }": 2,
    "{ exports { nodes { status fileName segment { memberCount } } } }": 2,
    '{ segments(search: "s1", includeDeleted: true) { nodes { slug memberCount } } }': 2,
    "{ auditLog { nodes { at action target before after } edges { cursor } } }": 1,
    '{ a: auditLog(slug: "S1") { nodes { at } } b: auditLog(slug: "S2") { nodes { id } } }': 1,
}


async def store_users(api: Api, sql: Sql, *, users: int, segments: int) -> None:
    """Store every user in every segment, and in one more that has expired."""
    slugs = [f"S{number}" for number in range(1, segments + 1)]
    await make_segments(api, *slugs, "RAN_OUT")
    await sql.execute(
        """
        INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
        SELECT n, 2024, 3, 'QUEUED', now(), now() FROM generate_series(1, $1) AS n
        """,
        users,
    )
    await sql.execute(
        """
        INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
        SELECT 1, 'QUEUED', now(), 'chg_MDo=', false, now(), now() FROM generate_series(1, $1)
        """,
        users,
    )
    for slug in slugs:
        await set_rollout(api, {"percent": 0}, slug)
    for user_id in range(1, users + 1):
        await update_user_segments(api, user_id, add=slugs)
        await insert_membership(sql, user_id, "RAN_OUT", joined_at=NOON, expires_at=NOON + HOUR)

    await sql.execute("UPDATE users SET key = 'k' || id")


async def count_statements(api: Api, query: str) -> int:
    await api(query)  # document parsed, connections open
    with recorded_statements() as statements:
        await api(query)
    return len(statements)


async def test_statement_count_is_independent_of_the_row_count(api: Api, sql: Sql) -> None:
    await store_users(api, sql, users=2, segments=2)
    few_users = {query: await count_statements(api, query) for query in QUERIES}
    await sql.execute("UPDATE segments SET deleted_at = now() WHERE deleted_at IS NULL")
    await store_users(api, sql, users=10, segments=10)
    many_users = {query: await count_statements(api, query) for query in QUERIES}
    assert few_users == QUERIES
    assert many_users == QUERIES


@pytest.mark.parametrize("rows", [1, 60])
async def test_page_takes_one_statement_at_any_position(api: Api, sql: Sql, rows: int) -> None:
    await make_segments(api, "A")
    for user_id in range(1, rows + 1):
        await insert_membership(sql, user_id, "A")
    query = """query($after: String) { history(first: 10, after: $after) {
      nodes { userId } pageInfo { endCursor hasNextPage } } }"""
    after, more = None, True
    while more:
        with recorded_statements() as statements:
            info = (await api(query, after=after))["history"]["pageInfo"]
        assert len(statements) == 1
        after, more = info["endCursor"], info["hasNextPage"]
