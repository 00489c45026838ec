"""A consumer that loads an export and applies the changes after its cursor has the members."""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from segmentql.adapters.database import Database
from segmentql.csv_files.generation import FileContext
from segmentql.exports import start
from segmentql.exports.actors import make_export
from segmentql.history.settled import BEFORE_FIRST_ROW, CursorState, HistoryCursor, check_cursor
from segmentql.memberships.expiry import expire_due
from tests.back_dating import HOUR, NOON, insert_membership
from tests.conftest import Api, Sql, empty_tables
from tests.exports.queries import create_export, download, export, number, user_ids
from tests.feed.queries import CHANGES
from tests.history.retention_helpers import (
    create_months,
    drop_before,
    drop_partitions,
    record_and_roll_up,
    start_of,
)
from tests.operations import make_segments, update_segment_members, update_user_segments


async def changes_after(sql: Sql, cursor: HistoryCursor) -> list[Any]:
    """Return the changes of the segment `a` after a cursor, in the order of the change feed."""
    return await sql.fetch(
        "SELECT * FROM history WHERE segment_id = 1 AND position > $1 ORDER BY position",
        cursor.position,
    )


def replay(members: Sequence[int], changes: Sequence[Any]) -> set[int]:
    """Return the members after the changes: the last change of a user decides."""
    current = set(members)
    for change in changes:
        if change["operation"] == "JOINED":
            current.add(change["user_id"])
        else:
            current.discard(change["user_id"])
    return current


async def members(sql: Sql) -> set[int]:
    return {row[0] for row in await sql.fetch("SELECT user_id FROM memberships")}


async def test_cursor_before_the_dropped_position_skips_no_change(
    api: Api, sql: Sql, database: Database
) -> None:
    """A leave of February that was recorded after a join of March has been dropped."""
    await make_segments(api, "a")
    await create_months(sql)
    try:
        for user_id, at, operation in (
            (1, start_of(2), "JOINED"),
            (2, start_of(3) + HOUR, "JOINED"),
            (1, start_of(2) + HOUR, "LEFT"),
            (2, start_of(3) + 2 * HOUR, "LEFT"),
        ):
            await sql.execute(
                """
                INSERT INTO history
                    (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
                VALUES ($1, $2, 1, $3, $1, 'MANUAL', $2)
                """,
                *(user_id, at, operation),
            )
        await record_and_roll_up(database)
        await drop_before(database, start_of(3))
        payload = await create_export(api, asOf=start_of(3).isoformat())
        error = await api.error(CHANGES, after=payload["export"]["cursor"])
        assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    finally:
        await empty_tables(sql)
        await drop_partitions(sql)


@pytest.mark.parametrize(
    "cursor", [BEFORE_FIRST_ROW, HistoryCursor.of_row(1_000_000_000_000, 1, "JOINED", NOON)]
)
def test_cursor_has_an_encoded_form(cursor: HistoryCursor) -> None:
    assert HistoryCursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "chg_",
        "MDo=",
        "chg_MDo",
        "chg_MDo=\n",
        "chg_ MDo=",
        "chg_MDA6",
        "chg_\N{LATIN SMALL LETTER E WITH ACUTE}",
        "chg_MTIz",
        BEFORE_FIRST_ROW.encode() * 2,
    ],
)
def test_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        HistoryCursor.decode(text)


async def test_cursor_of_now_is_the_newest_row(api: Api, sql: Sql, database: Database) -> None:
    await make_segments(api, "a")
    await update_segment_members(api, "a", add=[1, 2])
    cursor = HistoryCursor.decode((await create_export(api))["export"]["cursor"])
    assert cursor.position == await sql.fetchval("SELECT max(position) FROM history")
    async with database.read() as session:
        assert await check_cursor(session, cursor) is CursorState.VALID


async def test_cursor_of_a_past_time_is_before_every_later_row(
    api: Api, sql: Sql, database: Database
) -> None:
    await make_segments(api, "a", "b")
    await insert_membership(sql, 1, "a", joined_at=NOON, expires_at=NOON + HOUR)
    await insert_membership(sql, 2, "a", joined_at=NOON + 3 * HOUR)
    # The leave of user 1 is recorded after the join of user 2, which is later.
    assert await database.transaction(expire_due)
    entries = await sql.fetch("SELECT user_id, operation::text, position FROM history ORDER BY 3")
    assert [tuple(row)[:2] for row in entries] == [(1, "JOINED"), (2, "JOINED"), (1, "LEFT")]
    positions = [0, *(row["position"] for row in entries)]

    async def at(moment: datetime) -> int:
        created = (await create_export(api, asOf=moment.isoformat()))["export"]
        return positions.index(HistoryCursor.decode(created["cursor"]).position)

    assert await at(NOON - HOUR) == 0
    assert await at(NOON) == 1
    assert await at(NOON + 2 * HOUR) == 1
    assert await at(NOON + 3 * HOUR) == 3
    # The rows of other segments in the same month do not count, and those of later months do.
    await insert_membership(sql, 3, "b", joined_at=NOON + 4 * HOUR)
    positions.append(await sql.fetchval("SELECT position FROM history WHERE user_id = 3"))
    assert await at(NOON + 3 * HOUR) == 4
    await insert_membership(sql, 4, "b", joined_at=NOON.replace(month=5))
    assert await at(NOON + 3 * HOUR) == 4
    assert await at(NOON.replace(month=2)) == 0


async def test_cursor_is_before_rows_of_pending_transactions(
    api: Api, sql: Sql, export_context: FileContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "SETTLE_SECONDS", 0.1)
    await make_segments(api, "a")
    await insert_membership(sql, 1, "a", joined_at=NOON)
    first = await sql.fetchval("SELECT max(position) FROM history")
    await sql.execute("INSERT INTO users (id, created_at) VALUES (2, now())")
    async with sql.transaction():
        await sql.execute(
            "INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, cause)"
            " VALUES (2, 1, now(), now(), 'MANUAL')"
        )
        assert (await update_segment_members(api, "a", add=[3]))["errors"] == []
        early = (await create_export(api))["export"]
        await sql.execute("UPDATE member_count_rollup SET position = $1", first)
    assert HistoryCursor.decode(early["cursor"]) == BEFORE_FIRST_ROW
    async with sql.transaction():
        await sql.execute("DELETE FROM memberships WHERE user_id = 2")
        created = (await create_export(api))["export"]
        await make_export(export_context, number(created["id"]))
    cursor = HistoryCursor.decode(created["cursor"])
    assert cursor.position == first
    ready = await export(api, created["id"])
    file = (await download(ready["downloadUrl"])).text
    assert user_ids(file) == [1, 2, 3]
    assert replay([1, 2, 3], await changes_after(sql, cursor)) == {1, 3} == await members(sql)


@pytest.mark.slow  # It changes memberships for some seconds, while exports are made.
async def test_replay_from_the_cursor_gives_the_current_members(
    api: Api, sql: Sql, database: Database, export_context: FileContext
) -> None:
    await make_segments(api, "a")
    done = asyncio.Event()

    async def change(seed: int) -> None:
        chosen = random.Random(seed)  # noqa: S311
        while not done.is_set():
            user_id = chosen.randint(1, 12)
            match chosen.randint(1, 4):
                case 1:
                    await update_user_segments(api, user_id, add=["a"])
                case 2:
                    await update_user_segments(api, user_id, remove=["a"])
                case 3:
                    await update_user_segments(
                        api, user_id, add=["a"], ttlSeconds=1, onExisting="REPLACE"
                    )
                case 4:
                    await database.transaction(expire_due)

    async def make_exports() -> list[str]:
        chosen = random.Random(5)  # noqa: S311
        moments = [await sql.fetchval("SELECT clock_timestamp()")]
        created = []
        for _ in range(8):
            moments.append(await sql.fetchval("SELECT clock_timestamp()"))
            for as_of in (None, chosen.choice(moments).isoformat()):
                made = (await create_export(api, asOf=as_of))["export"]
                await make_export(export_context, number(made["id"]))
                created.append(made["id"])
        done.set()
        return created

    changes = [asyncio.create_task(change(seed)) for seed in range(4)]
    created = await make_exports()
    await asyncio.gather(*changes)
    while await database.transaction(expire_due):
        pass
    current = await members(sql)
    for export_id in created:
        made = await export(api, export_id)
        exported = user_ids((await download(made["downloadUrl"])).text)
        cursor = HistoryCursor.decode(made["cursor"])
        assert replay(exported, await changes_after(sql, cursor)) == current
        late_rows = await sql.fetchval(
            "SELECT count(*) FROM history WHERE at > $1 AND position <= $2",
            datetime.fromisoformat(made["asOf"]),
            cursor.position,
        )
        assert late_rows == 0
