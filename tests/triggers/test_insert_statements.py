"""Each kind of statement that inserts memberships records each new row once."""

from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import Sql
from tests.timeline import HOUR, Entry, history_entries, make_segment, make_users
from tests.triggers.conftest import AT, JOIN

MANY = "(VALUES (1, 'one'), (2, 'two'), (3, 'three')) AS many (user_id, actor)"


async def _values(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
        SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY}
        """,
        segment_id,
        AT,
    )


async def _copy(service: Sql, segment_id: int) -> None:
    await service.copy_records_to_table(
        "memberships",
        columns=["user_id", "segment_id", "joined_at", "updated_at", "cause", "actor"],
        records=[
            (user_id, segment_id, AT, AT, "MANUAL", actor)
            for user_id, actor in ((1, "one"), (2, "two"), (3, "three"))
        ],
    )


async def _merge(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        MERGE INTO memberships m USING {MANY}
        ON m.user_id = many.user_id AND m.segment_id = $1
        WHEN NOT MATCHED THEN
            INSERT (user_id, segment_id, joined_at, updated_at, cause, actor)
            VALUES (many.user_id, $1, $2, $2, 'MANUAL', many.actor)
        WHEN MATCHED THEN UPDATE SET actor = 'nobody'
        """,
        segment_id,
        AT,
    )


async def _on_conflict(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
        SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY}
        ON CONFLICT (user_id, segment_id) DO UPDATE SET actor = 'nobody'
        """,
        segment_id,
        AT,
    )


async def _common_table(service: Sql, segment_id: int) -> None:
    await service.execute(
        f"""
        WITH one AS (
            INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
            SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY} WHERE user_id = 1
        ), other AS (
            INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause, actor)
            SELECT user_id, $1, $2, $2, 'MANUAL', actor FROM {MANY} WHERE user_id > 1
        )
        SELECT
        """,
        segment_id,
        AT,
    )


@pytest.mark.parametrize("put_in", [_values, _copy, _merge, _on_conflict, _common_table])
async def test_every_kind_of_insert_records_each_row_once(
    sql: Sql, service: Sql, put_in: Callable[[Sql, int], Awaitable[None]]
) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 1, 2, 3)
    await put_in(service, segment_id)
    ids = await sql.fetch("SELECT id FROM memberships ORDER BY user_id")
    assert await history_entries(sql) == [
        Entry(AT, "JOINED", user_id, segment_id, membership["id"], "MANUAL", actor)
        for user_id, actor, membership in zip((1, 2, 3), ("one", "two", "three"), ids, strict=True)
    ]


@pytest.mark.parametrize("put_in", [_merge, _on_conflict])
async def test_change_of_an_existing_row_records_no_entry(
    sql: Sql, service: Sql, put_in: Callable[[Sql, int], Awaitable[None]]
) -> None:
    segment_id = await make_segment(sql, "A")
    await make_users(sql, 1, 2, 3)
    await service.fetchval(JOIN, 2, segment_id, AT - HOUR, None, "ROLLOUT", None)
    await put_in(service, segment_id)
    assert [(e.at, e.operation, e.user_id, e.actor) for e in await history_entries(sql)] == [
        (AT - HOUR, "JOINED", 2, None),
        (AT, "JOINED", 1, "one"),
        (AT, "JOINED", 3, "three"),
    ]
