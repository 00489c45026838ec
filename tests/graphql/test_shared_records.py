"""Segments that many responses share are written once, and never after they have changed."""

import pytest

from segmentql.graphql.context import Context
from segmentql.graphql.execution import shared_objects
from segmentql.graphql.execution.shared_objects import MAX_SHARED_OBJECTS
from tests.conftest import Sql
from tests.graphql.executor_helpers import (
    COMPILING_EXECUTOR,
    PLAIN_EXECUTOR,
    comparable_response,
    execute,
)

FIELDS = "id slug name description version createdAt updatedAt deletedAt __typename"
QUERY = f"query($ids: [ID!]!) {{ usersById(ids: $ids) {{ id segments {{ {FIELDS} }} }} }}"
IDS = ["1", "2", "3"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE segments SET name = 'Renamed', version = version + 1",
        "UPDATE segments SET name = NULL",
        "UPDATE segments SET description = 'Longer than before'",
        "UPDATE segments SET updated_at = updated_at + interval '1 microsecond'",
        "UPDATE segments SET created_at = created_at - interval '1 microsecond'",
        "UPDATE segments SET deleted_at = now()",
        "DELETE FROM memberships WHERE user_id = 1",
    ],
)
async def test_change_of_a_segment_is_visible_in_the_next_response(
    context: Context, sql: Sql, change: str
) -> None:
    before = await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)
    await sql.execute(change)
    after = await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)
    assert comparable_response(after) != comparable_response(before)
    plain = await execute(PLAIN_EXECUTOR, context, QUERY, ids=IDS)
    assert comparable_response(after) == comparable_response(plain)


async def test_repeated_response_counts_the_same_bytes(context: Context) -> None:
    sizes = {(await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)).size for _ in range(3)}
    assert len(sizes) == 1
    assert sizes.pop() > len(IDS) * len(FIELDS)


async def test_aliases_of_a_segment_have_their_own_fields(context: Context) -> None:
    query = "{ user(id: 1) { a: segments { slug } b: segments { slug name } c: segments { s: slug }"
    query += " memberships { segment { slug version } } } }"
    for _ in range(2):
        planned = await execute(COMPILING_EXECUTOR, context, query)
        plain = await execute(PLAIN_EXECUTOR, context, query)
        assert comparable_response(planned) == comparable_response(plain)


async def test_more_segments_than_a_plan_keeps_are_written(context: Context, sql: Sql) -> None:
    await sql.execute(
        """
        WITH stored AS (
            INSERT INTO segments (slug, created_at, updated_at)
            SELECT 'MANY-' || n, '2020-01-01T00:00:00.000001Z', '2024-02-29T12:34:56.789012Z'
            FROM generate_series(1, $1) AS n RETURNING id
        )
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)
        SELECT user_id, id, now(), now(), 'MANUAL' FROM stored, (VALUES (1), (2)) AS u (user_id)
        """,
        MAX_SHARED_OBJECTS + 50,
    )
    for _ in range(2):
        planned = await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)
        plain = await execute(PLAIN_EXECUTOR, context, QUERY, ids=IDS)
        assert comparable_response(planned) == comparable_response(plain)
        assert b"2024-02-29T12:34:56.789012" in comparable_response(planned)[0]


def kept_objects() -> int:
    return sum(map(len, shared_objects._WRITTEN.values()))


async def test_segment_with_a_long_description_is_not_kept(context: Context, sql: Sql) -> None:
    await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)
    await sql.execute("UPDATE segments SET description = repeat('x', 4096)")
    before = kept_objects()
    planned = await execute(COMPILING_EXECUTOR, context, QUERY, ids=IDS)
    plain = await execute(PLAIN_EXECUTOR, context, QUERY, ids=IDS)
    assert comparable_response(planned) == comparable_response(plain)
    assert kept_objects() == before


async def test_written_objects_of_all_selections_are_limited(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_objects, "MAX_SHARED_OBJECTS_OF_PROCESS", 5)
    for number in range(20):
        query = f"{{ usersById(ids: [1, 2, 3]) {{ segments {{ s{number}: slug }} }} }}"
        await execute(COMPILING_EXECUTOR, context, query)
        assert 0 < kept_objects() <= 5


async def test_large_written_object_is_not_kept(context: Context) -> None:
    names = " ".join(f"{alias}: createdAt" for alias in "abcdefghijklmnopqrstuvwxyz")
    names += " " + " ".join(f"{alias}{alias}: updatedAt" for alias in "abcdefghijkl")
    before = kept_objects()
    await execute(COMPILING_EXECUTOR, context, f"{{ user(id: 1) {{ segments {{ {names} }} }} }}")
    assert kept_objects() == before
