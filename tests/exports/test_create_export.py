"""`createExport`, `export` and `exports` create and return exports."""

import gzip
import json
from datetime import timedelta
from typing import Any

import pytest

from segmentql.csv_files.generation import FileContext
from segmentql.exports.actors import make_export
from segmentql.history.settled import BEFORE_FIRST_ROW
from tests.back_dating import NOON, all_rows, insert_membership
from tests.conftest import Api, RunWorker, Sql
from tests.exports.queries import create_export, download, export
from tests.operations import create_segment, delete_segment, make_segments, parse_timestamp

CSV = """\
user_id,user_key,joined_at,expires_at,cause
7,,2024-03-01T12:00:00.000000Z,,MANUAL
"""


@pytest.fixture
async def member(api: Api, sql: Sql) -> None:
    """Store a member of the segment `a`: user 7, since noon."""
    await make_segments(api, "a")
    await insert_membership(sql, 7, "a")


async def test_export_is_queued_and_then_made(
    api: Api, sql: Sql, member: None, export_context: FileContext
) -> None:
    before = await sql.fetchval("SELECT clock_timestamp()")
    payload = await create_export(api)
    queued = payload["export"]
    assert payload["errors"] == []
    as_of = parse_timestamp(queued["asOf"])
    assert before < as_of < parse_timestamp(queued["createdAt"])
    assert queued == {
        "id": "exp_1",
        "segment": {"slug": "a"},
        "status": "QUEUED",
        "rowCount": None,
        "sizeBytes": None,
        "asOf": queued["asOf"],
        "cursor": queued["cursor"],
        "createdAt": queued["createdAt"],
        "finishedAt": None,
        "failure": None,
        "fileName": f"a-{as_of:%Y%m%dT%H%M%SZ}.csv",
        "downloadUrl": None,
    }
    await make_export(export_context, 1)
    ready = await export(api, "exp_1")
    assert ready == {
        **queued,
        "status": "READY",
        "rowCount": 1,
        "sizeBytes": len(CSV),
        "finishedAt": ready["finishedAt"],
        "downloadUrl": ready["downloadUrl"],
    }
    response = await download(ready["downloadUrl"])
    assert response.text == CSV
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == (
        f'attachment; filename="{queued["fileName"]}"'
    )


async def test_gzip_file_has_the_same_rows(
    api: Api, sql: Sql, member: None, export_context: FileContext
) -> None:
    await create_export(api, gzip=True)
    await make_export(export_context, 1)
    ready = await export(api, "exp_1")
    assert ready["fileName"].endswith("Z.csv.gz")
    assert (await sql.fetchval("SELECT object_key FROM exports")).endswith(".csv.gz")
    response = await download(ready["downloadUrl"])
    assert response.headers["Content-Type"] == "application/gzip"
    assert gzip.decompress(response.content).decode() == CSV
    assert (ready["rowCount"], ready["sizeBytes"]) == (1, len(response.content))


@pytest.mark.slow  # It starts a worker process.
async def test_one_request_returns_the_link_to_the_file(
    api: Api, member: None, run_worker: RunWorker
) -> None:
    async with run_worker():
        payload = await create_export(api, waitSeconds=30)
    assert (payload["errors"], payload["export"]["status"]) == ([], "READY")
    assert (await download(payload["export"]["downloadUrl"])).text == CSV


async def test_empty_segment_has_a_header_only(api: Api, export_context: FileContext) -> None:
    await make_segments(api, "a")
    payload = await create_export(api)
    assert payload["export"]["cursor"] == BEFORE_FIRST_ROW.encode()
    await make_export(export_context, 1)
    ready = await export(api, "exp_1")
    assert ready["rowCount"] == 0
    assert (await download(ready["downloadUrl"])).text == CSV.splitlines(keepends=True)[0]


async def test_file_name_of_a_long_slug_is_short(api: Api) -> None:
    slug = "x" * 255
    await make_segments(api, slug)
    payload = await create_export(api, slug, gzip=True)
    assert payload["export"]["fileName"].startswith("x" * 100 + "-")
    assert len(payload["export"]["fileName"]) < 130


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"slug": "b"}, 'No segment has the slug "b".'),
        ({"slug": "gone"}, 'No segment has the slug "gone".'),
        ({"slug": ""}, "slug"),
        ({"waitSeconds": 61}, "waitSeconds"),
    ],
)
async def test_bad_input_is_rejected(
    api: Api, sql: Sql, member: None, fields: dict[str, Any], problem: str
) -> None:
    await make_segments(api, "gone")
    await delete_segment(api, "gone")
    before = await all_rows(sql)
    payload = await create_export(api, **{"slug": "a", **fields})
    assert payload["export"] is None
    (error,) = payload["errors"]
    assert error["path"] == list(fields)
    assert problem in error["message"]
    assert await all_rows(sql) == before


async def test_time_in_the_future_is_rejected(api: Api, sql: Sql, member: None) -> None:
    now = await sql.fetchval("SELECT clock_timestamp()")
    before = await all_rows(sql)
    payload = await create_export(api, asOf=(now + timedelta(minutes=1)).isoformat())
    (error,) = payload["errors"]
    assert (payload["export"], error["code"], error["path"]) == (None, "INVALID_INPUT", ["asOf"])
    assert "the time is in the future" in error["message"]
    assert await all_rows(sql) == before


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999-12:00"])
async def test_time_before_every_segment_gives_an_empty_file(
    api: Api, member: None, export_context: FileContext, as_of: str
) -> None:
    payload = await create_export(api, asOf=as_of)
    assert payload["errors"] == []
    assert payload["export"]["cursor"] == BEFORE_FIRST_ROW.encode()
    await make_export(export_context, 1)
    assert (await export(api, "exp_1"))["rowCount"] == 0


async def test_exports_are_listed_by_slug(api: Api) -> None:
    await make_segments(api, "a", "b")
    await create_export(api, "a")
    await create_export(api, "b")
    await delete_segment(api, "a")
    assert (await create_segment(api, slug="a"))["errors"] == []
    await create_export(api, "a")

    async def listed(arguments: str) -> list[str]:
        page = (await api(f"{{ exports({arguments}) {{ nodes {{ id }} }} }}"))["exports"]
        return [node["id"] for node in page["nodes"]]

    assert await listed("first: 20") == ["exp_3", "exp_2", "exp_1"]
    assert await listed("first: 2") == ["exp_3", "exp_2"]
    assert await listed('slug: "a"') == ["exp_3", "exp_1"]
    assert await listed('slug: "c"') == []


async def test_request_is_in_the_audit_log(api: Api, sql: Sql, member: None) -> None:
    created = (await create_export(api, asOf=NOON.isoformat(), gzip=True))["export"]
    entry = await sql.fetchrow("SELECT * FROM audit_log WHERE action = 'export.requested'")
    assert entry is not None
    assert (entry["target"], entry["segment_id"], entry["before"]) == (created["id"], 1, None)
    assert json.loads(entry["after"]) == {
        "slug": "a",
        "asOf": "2024-03-01T12:00:00.000000Z",
        "gzip": True,
    }


async def test_unknown_export_is_null(api: Api) -> None:
    assert await export(api, "exp_1") is None
