"""An import with the mode ADD adds each user of the list once and accounts for every row."""

import pytest

from tests.conftest import Api, Sql
from tests.imports.lists import Imports, counts, download
from tests.operations import create_user, make_segments


async def members(sql: Sql) -> list[int]:
    return [
        row["user_id"]
        for row in await sql.fetch("SELECT user_id FROM memberships ORDER BY user_id")
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_every_row_is_accounted_for(api: Api, sql: Sql, imports: Imports, end: str) -> None:
    await make_segments(api, "a")
    await create_user(api, id="7")
    data = end.join(["user_id", "7", "5", "", "7", "x", "99999999999999999999", "6", ""])
    finished = await imports.run(data.encode(), maxRejected=2)
    assert finished["failure"] is None
    assert (finished["status"], finished["rows"]) == ("COMPLETED", 8)
    assert counts(finished) == {
        "HEADER": 1,
        "BLANK": 1,
        "JOINED": 3,
        "DUPLICATE": 1,
        "MALFORMED": 1,
        "OUT_OF_RANGE": 1,
    }
    assert [(r["line"], r["value"], r["reason"]) for r in finished["rejections"]] == [
        (6, "x", "MALFORMED"),
        (7, "99999999999999999999", "OUT_OF_RANGE"),
    ]
    assert await members(sql) == [5, 6, 7]
    lines = (await download(finished["resultUrl"])).splitlines()
    assert lines[:5] == [
        "line,value,user_id,outcome,detail",
        "1,user_id,,HEADER,",
        "2,7,7,JOINED,",
        "3,5,5,JOINED,",
        '4,"",,BLANK,',
    ]
    assert len(lines) == 9
    url = await imports.filter(finished["id"], ["DUPLICATE", "BLANK"])
    assert url
    assert (await download(url)).splitlines() == [
        "line,value,user_id,outcome,detail",
        "4,,,BLANK,",
        "5,7,7,DUPLICATE,",
    ]
    assert await sql.fetchval("SELECT count(*) FROM import_rows") == 0
    assert await sql.fetchval("SELECT count(*) FROM import_users") == 0
    joined = await sql.fetch("SELECT import_id, cause FROM history")
    assert [tuple(row) for row in joined] == [(1, "MANUAL")] * 3


async def test_too_many_rejected_rows_refuse_the_file(api: Api, sql: Sql, imports: Imports) -> None:
    await make_segments(api, "a")
    finished = await imports.run(b"5\nx\n6\n")
    assert finished["status"] == "REFUSED"
    assert counts(finished) == {"MALFORMED": 1, "NOT_REACHED": 2}
    assert await members(sql) == []
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
