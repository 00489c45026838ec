"""The SQL of docs/operations runs on the current schema."""

from tests.backups import sql_of
from tests.conftest import Api, Sql
from tests.operations import make_segments
from tests.rollouts.graphql_client import set_rollout


async def test_queries_find_work_that_no_worker_does(api: Api, sql: Sql) -> None:
    await make_segments(api, "A")
    await set_rollout(api, {"percent": 50})
    await api(
        "mutation { createReport(input: {year: 2024, month: 2, waitSeconds: 0})"
        " { errors { code } } }"
    )
    await api(
        'mutation { createExport(input: {slug: "A", waitSeconds: 0}) { errors { code message } } }'
    )
    await api(
        'mutation { createImport(input: {slug: "A", source: {segments: {anyOf: ["A"]}}})'
        " { errors { code message } } }"
    )
    rollouts, imports, reports, _transactions = [
        await sql.fetch(query) for query in sql_of("failures.md")
    ]
    assert [tuple(row)[:2] for row in rollouts] == [("A", "ACTIVE")]
    assert [tuple(row)[:3] for row in imports] == [(1, "A", "QUEUED")]
    assert [tuple(row)[:2] for row in reports] == [("rep_1", "QUEUED"), ("exp_1", "QUEUED")]


async def test_ids_of_lost_rows_are_left_out_after_a_restore(api: Api, sql: Sql) -> None:
    (statements,) = [block for block in sql_of("backup.md") if "id_allocator" in block]
    await sql.execute(statements)
    created = await api('mutation { createSegment(input: {slug: "A"}) { segment { id } } }')
    assert created == {"createSegment": {"segment": {"id": "seg_1002"}}}
    created = await api("mutation { createUser(input: {}) { user { id } } }")
    assert int(created["createUser"]["user"]["id"]) > 1000000
