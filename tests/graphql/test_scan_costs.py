"""The estimated cost of every field covers the rows that PostgreSQL reads for it.

The fields are found by a walk through the schema. Each query runs with little data and with much,
and each of its statements runs again under EXPLAIN (ANALYZE).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from strawberry.types.field import StrawberryField

from graphql import GraphQLObjectType, get_named_type, is_composite_type
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.schema import make_schema
from tests.conftest import Api, Sql
from tests.query_plans import captured_statements, scanned_rows
from tests.rollouts.graphql_client import set_rollout
from tests.sample_data import INSERT_IMPORT

ROWS_PER_COST = 1000
"""The rows that are scanned but not returned for a cost of 1.

An index-only scan of so many rows takes about as long as an object.
"""

SMALL, LARGE = 100, 1200
"""The numbers of users, segments, members of one segment, and joins and leaves each of one user."""

PATHS = {
    "Query": "{{ {0} }}",
    "User": '{{ user(id: "1") {{ {0} }} }}',
    "Segment": '{{ segment(slug: "BIG") {{ {0} }} }}',
    "Rollout": '{{ segment(slug: "BIG") {{ rollout {{ {0} }} }} }}',
    "Membership": '{{ segment(slug: "BIG") {{ members(first: 1) {{ nodes {{ {0} }} }} }} }}',
    "HistoryEntry": "{{ history(first: 1) {{ nodes {{ {0} }} }} }}",
    "ApiKey": "{{ apiKeys(first: 1) {{ nodes {{ {0} }} }} }}",
    "AuditEntry": "{{ auditLog(first: 1) {{ nodes {{ {0} }} }} }}",
    "Explanation": '{{ explain(userId: 1, slug: "BIG") {{ {0} }} }}',
    "Export": "{{ exports(first: 1) {{ nodes {{ {0} }} }} }}",
    "Import": "{{ imports(first: 1) {{ nodes {{ {0} }} }} }}",
    "Report": "{{ reports(first: 1) {{ nodes {{ {0} }} }} }}",
}
"""One path to an object of each type that has fields with resolvers."""

NO_READS = {"edges", "pageInfo", "cursor", "startCursor", "endCursor"}
"""Fields of connections, edges and `PageInfo`, which read nothing."""

NOT_WALKED = {"Mutation", "Subscription", "ChangeBatch", "MembershipEvent"}
"""Types without fields of queries that read. `changes` also writes, and tests/feed has its test."""

REQUIRED = {
    "id": '"1"',
    "ids": "[1, 2]",
    "key": '"key1"',
    "keys": '["key1", "key2"]',
    "slug": '"BIG"',
    "from": '"2024-01-01T00:00:00Z"',
    "to": '"A_MOMENT_AGO"',
}
IDS = {"node": '"seg_1"', "report": '"rep_1"', "import": '"imp_1"', "export": '"exp_1"'}
OPTIONAL = {
    "slug": ['"BIG"', '"LEFT"', '"UNKNOWN"'],
    "userId": ["1", "99999999"],
    "prefix": ['"S"', '"UNKNOWN"'],
    "search": ['"s"', '"S77"', '"UNKNOWN"'],
    "includeDeleted": ["true"],
    "actor": ['"ada"', '"UNKNOWN"'],
    "from": ['"2030-01-01T00:00:00Z"'],
    "to": ['"2020-01-01T00:00:00Z"'],
    "asOf": ['"A_MOMENT_AGO"'],
    "points": ["500"],
    "first": [],
    "after": [],
    "expiresInSeconds": [],
    "outcomes": [],
}


def _queries() -> Iterator[str]:
    schema = make_schema()._schema
    for kind in schema.type_map.values():
        if not isinstance(kind, GraphQLObjectType) or kind.name in NOT_WALKED:
            continue
        for name, field in kind.fields.items():
            definition = field.extensions.get(DEFINITION)
            if not isinstance(definition, StrawberryField) or not definition.base_resolver:
                continue
            if (kind.name not in PATHS and name in NO_READS) or name == "changes":
                continue
            required = [
                f"{argument}: {IDS.get(name) or REQUIRED[argument]}"
                for argument, declared in field.args.items()
                if str(declared.type).endswith("!")
            ]
            optional_arguments = dict(field.args)
            if name == "explain":  # needs one of two optional arguments
                required.append("userId: 1")
                del optional_arguments["userId"], optional_arguments["userKey"]
            selected = ""
            if is_composite_type(get_named_type(field.type)):
                selected = (
                    " { nodes { __typename } }"
                    if str(field.type).removesuffix("!").endswith("Connection")
                    else " { __typename }"
                )
            smallest = ["first: 1"] if "first" in field.args else []
            for optional in [
                [],
                smallest,
                *([*smallest, one] for one in _optional(optional_arguments)),
            ]:
                literals = ", ".join([*required, *optional])
                arguments = f"({literals})" if literals else ""
                yield PATHS[kind.name].format(f"{name}{arguments}{selected}")


def _optional(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name, declared in arguments.items():
        if not str(declared.type).endswith("!"):
            yield from (f"{name}: {value}" for value in OPTIONAL[name])


QUERIES = list(dict.fromkeys(_queries()))

SEGMENTS = """
INSERT INTO segments (slug, created_at, updated_at, deleted_at)
VALUES ('BIG', '2024-01-01Z', '2024-01-01Z', NULL),
    ('LEFT', '2024-01-01Z', '2024-01-01Z', '2024-03-01Z')
"""

# BIG has as many members and excluded users as there are users, and LEFT had. User 1 joined and
# left every other segment, each time at a different moment.
GROWING = """
INSERT INTO users (id, created_at, key)
SELECT n, '2024-01-01Z', 'key' || n FROM generate_series({start}, {end}) AS n;
INSERT INTO segments (slug, created_at, updated_at)
SELECT 'S' || n, '2024-01-01Z', '2024-01-01Z' FROM generate_series({start}, {end}) AS n;
INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
SELECT n, s.id, '2024-02-01Z', '2024-02-01Z', 'ROLLOUT'
FROM generate_series({start}, {end}) AS n CROSS JOIN segments s WHERE s.slug IN ('BIG', 'LEFT');
INSERT INTO exclusions (user_id, segment_id, excluded_at)
SELECT n, s.id, '2024-02-01Z'
FROM generate_series({start}, {end}) AS n CROSS JOIN segments s WHERE s.slug = 'BIG';
INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
SELECT n, 2024, 3, 'QUEUED', now(), now() FROM generate_series({start}, {end}) AS n;
INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
SELECT s.id, 'QUEUED', now(), 'chg_MDo=', false, now(), now()
FROM generate_series({start}, {end}) AS n CROSS JOIN segments s WHERE s.slug IN ('BIG', 'LEFT');
INSERT INTO imports (segment_id, status, mode, options, source, created_at, finished_at,
    row_count, counts, needs_cleanup)
SELECT i.segment_id, i.status, i.mode, i.options, i.source, i.created_at, i.finished_at,
    i.row_count, i.counts, i.needs_cleanup
FROM imports i CROSS JOIN generate_series({start}, {end}) AS n WHERE i.id = 1;
INSERT INTO audit_log (action, target, actor, segment_id)
SELECT 'segment.updated', 'seg_' || s.id, actor, s.id
FROM generate_series({start}, {end}) AS n CROSS JOIN segments s
CROSS JOIN (VALUES ('ada'), (NULL)) AS actors (actor) WHERE s.slug IN ('BIG', 'LEFT');
SET session_replication_role = replica;
INSERT INTO history (membership_id, user_id, segment_id, operation, at, cause, recorded_at)
SELECT 1000000 + n, 1, s.id, operation,
    '2024-02-01Z'::timestamptz + n * interval '1 minute' + pause, 'MANUAL', now()
FROM generate_series({start}, {end}) AS n JOIN segments s ON s.slug = 'S' || n
CROSS JOIN (
    VALUES ('JOINED'::operation, interval '0'), ('LEFT'::operation, interval '30 seconds')
) AS entry (operation, pause);
SET session_replication_role = DEFAULT;
"""


def _objects(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_objects, value.values()))
    return sum(map(_objects, value)) if isinstance(value, list) else 0


async def _measured(api: Api, sql: Sql, query: str) -> tuple[int, float]:
    """Return the estimated cost of a query, and the number of rows read but not returned."""
    with captured_statements() as statements:
        body = (await api.http.post("/graphql", json={"query": query})).json()
    assert "errors" not in body, (query, body)
    rows = 0.0
    for statement, parameters in statements:
        rows += await scanned_rows(sql, statement, parameters)
    return body["extensions"]["cost"]["estimated"], rows - _objects(body["data"])


async def _measure_all(api: Api, sql: Sql) -> dict[str, tuple[int, float]]:
    await sql.execute("VACUUM ANALYZE")
    now = (await sql.fetchval("SELECT clock_timestamp()")).isoformat()
    return {
        query: await _measured(api, sql, query.replace("A_MOMENT_AGO", now)) for query in QUERIES
    }


async def test_estimated_cost_covers_the_scanned_rows(api: Api, sql: Sql) -> None:
    assert len(QUERIES) > 30
    await sql.execute(SEGMENTS)
    await sql.execute(INSERT_IMPORT.format(slug="BIG", status="COMPLETED"))
    await sql.execute(GROWING.format(start=1, end=SMALL))
    assert (await set_rollout(api, {"percent": 0}, "BIG"))["errors"] == []
    small = await _measure_all(api, sql)
    await sql.execute(GROWING.format(start=SMALL + 1, end=LARGE))
    large = await _measure_all(api, sql)
    too_cheap = {}
    for query, (cost, rows) in large.items():
        grows = rows > 2 * max(small[query][1], SMALL)
        if grows and rows > ROWS_PER_COST * cost:
            too_cheap[query] = (cost, small[query][1], rows)
    assert too_cheap == {}
    # The check proves that the queries scan rows at all.
    (counting,) = [query for query in QUERIES if "enrolled" in query]
    assert large[counting][1] > LARGE
