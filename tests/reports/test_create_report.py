"""`createReport`, `report` and `reports` create and return reports."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.reports.actors import make_report
from segmentql.settings import Settings
from tests.back_dating import all_rows, insert_past_membership
from tests.conftest import Api, Sql, until
from tests.operations import create_user, delete_user, make_segments, parse_timestamp
from tests.reports.queries import create_report, number, report

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
CSV = """\
user_id,segment_slug,operation,executed_at
7,a,I,2024-03-01 00:00:00
7,a,D,2024-03-02 00:00:00
"""


@pytest.fixture
async def march_membership(api: Api, sql: Sql) -> None:
    """Store a membership of user 7 in `a` for a day of March 2024."""
    await make_segments(api, "a")
    await create_user(api, id="7")
    await insert_past_membership(sql, 7, "a", joined_at=MARCH, left_at=MARCH.replace(day=2))


async def test_report_is_queued_and_then_generated(
    api: Api, march_membership: None, report_context: FileContext
) -> None:
    payload = await create_report(api, userId="7", year=2024, month=3)
    queued = payload["report"]
    assert payload["errors"] == []
    assert queued == {
        "id": "rep_1",
        "userId": "7",
        "user": {"id": "7"},
        "year": 2024,
        "month": 3,
        "status": "QUEUED",
        "rowCount": None,
        "sizeBytes": None,
        "createdAt": queued["createdAt"],
        "finishedAt": None,
        "failure": None,
        "fileName": "segments-7-2024-03.csv",
        "downloadUrl": None,
    }
    await make_report(report_context, number(queued["id"]))
    ready = await report(api, queued["id"])
    assert ready == {
        **queued,
        "status": "READY",
        "rowCount": 2,
        "sizeBytes": len(CSV),
        "finishedAt": ready["finishedAt"],
        "downloadUrl": ready["downloadUrl"],
    }
    assert parse_timestamp(ready["finishedAt"]) > parse_timestamp(ready["createdAt"])


async def test_worker_needs_one_connection_for_the_report_of_a_user(
    api: Api, settings: Settings, storage: Storage, march_membership: None
) -> None:
    """With two, as many reports as connections would wait for each other."""
    created = (await create_report(api, userId="7", year=2024, month=3))["report"]
    one_connection = settings.model_copy(update={"database_pool_size": 1})
    database = Database(one_connection, name="tests", publish=lambda messages: None)
    await make_report(FileContext(database, storage, retention_days=30), number(created["id"]))
    await database.dispose()
    assert (await report(api, created["id"]))["status"] == "READY"


async def test_link_downloads_the_exact_bytes_as_a_named_file(
    api: Api, march_membership: None, report_context: FileContext
) -> None:
    created = (await create_report(api, userId="7", year=2024, month=3))["report"]
    await make_report(report_context, number(created["id"]))
    link = (await report(api, created["id"]))["downloadUrl"]
    async with httpx.AsyncClient() as client:
        response = await client.get(link)
    assert response.status_code == 200
    assert response.text == CSV
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert (
        response.headers["content-disposition"] == 'attachment; filename="segments-7-2024-03.csv"'
    )


async def test_each_read_signs_a_new_link_that_is_not_stored(
    api: Api, sql: Sql, march_membership: None, report_context: FileContext
) -> None:
    created = (await create_report(api, userId="7", year=2024, month=3))["report"]
    await make_report(report_context, number(created["id"]))
    link = (await report(api, created["id"]))["downloadUrl"]
    stored_rows = str(await all_rows(sql))
    assert link not in stored_rows
    assert "X-Amz-Signature" in link
    assert "X-Amz-" not in stored_rows


async def test_object_keys_cannot_be_guessed(
    api: Api, sql: Sql, march_membership: None, report_context: FileContext
) -> None:
    for _ in range(2):
        created = (await create_report(api, userId="7", year=2024, month=3))["report"]
        await make_report(report_context, number(created["id"]))
    first, second = [row[0] for row in await sql.fetch("SELECT object_key FROM reports")]
    assert first != second
    async with httpx.AsyncClient() as client:
        link = (await report(api, created["id"]))["downloadUrl"]
        assert (await client.get(link.partition("?")[0])).status_code == 403


async def test_response_waits_until_the_report_is_ready(
    api: Api, sql: Sql, march_membership: None, report_context: FileContext
) -> None:
    asking = asyncio.create_task(create_report(api, userId="7", year=2024, month=3, waitSeconds=60))
    await until(lambda: sql.fetchval("SELECT count(*) FROM reports"))
    await make_report(report_context, 1)
    ready = (await asking)["report"]
    assert ready["status"] == "READY"
    assert ready["downloadUrl"]


async def test_response_waits_at_most_wait_seconds(api: Api, march_membership: None) -> None:
    payload = await create_report(api, userId="7", year=2024, month=3, waitSeconds=1)
    assert payload["report"]["status"] == "QUEUED"


async def test_report_on_all_users_has_its_own_file_name(
    api: Api, march_membership: None, report_context: FileContext
) -> None:
    created = (await create_report(api, userId=None, year=2024, month=3))["report"]
    assert (created["userId"], created["user"]) == (None, None)
    assert created["fileName"] == "segments-all-2024-03.csv"


async def test_report_on_a_deleted_user_is_possible(
    api: Api, march_membership: None, report_context: FileContext
) -> None:
    await delete_user(api, 7)
    created = (await create_report(api, userId="7", year=2024, month=3))["report"]
    await make_report(report_context, number(created["id"]))
    ready = await report(api, created["id"])
    assert (ready["userId"], ready["user"], ready["rowCount"]) == ("7", None, 2)


async def test_report_on_the_current_month_is_possible(api: Api, sql: Sql) -> None:
    now = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    payload = await create_report(api, year=now.year, month=now.month)
    assert payload["errors"] == []


@pytest.mark.parametrize(
    ("fields", "path", "allowed"),
    [
        ({"month": 0}, "month", "1 to 12"),
        ({"month": 13}, "month", "1 to 12"),
        ({"year": 1999}, "year", "2000 to 9999"),
        ({"year": 10000}, "year", "2000 to 9999"),
        ({"waitSeconds": -1}, "waitSeconds", "0 to 60 seconds"),
        ({"waitSeconds": 61}, "waitSeconds", "0 to 60 seconds"),
        ({"userId": "0"}, "userId", "a decimal number"),
    ],
)
async def test_invalid_value_is_rejected_by_name(
    api: Api, sql: Sql, fields: dict[str, Any], path: str, allowed: str
) -> None:
    before = await all_rows(sql)
    payload = await create_report(api, **{"year": 2024, "month": 3, **fields})
    assert payload["report"] is None
    (error,) = payload["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", [path])
    assert error["allowed"].startswith(allowed)
    assert await all_rows(sql) == before


async def test_future_month_is_rejected(api: Api, sql: Sql) -> None:
    now = await sql.fetchval("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    months = now.year * 12 + now.month  # next month, counted in months from January of year 0
    payload = await create_report(api, year=months // 12, month=months % 12 + 1)
    (error,) = payload["errors"]
    assert error["code"] == "INVALID_INPUT"
    assert error["path"] == (["year"] if now.month == 12 else ["month"])
    assert error["allowed"].startswith(f"a month up to {now.year:04}-{now.month:02}")
    assert await sql.fetchval("SELECT count(*) FROM reports") == 0


async def test_unknown_user_is_rejected(api: Api, sql: Sql) -> None:
    payload = await create_report(api, userId="404", year=2024, month=3)
    (error,) = payload["errors"]
    assert (error["__typename"], error["path"]) == ("UserNotFound", ["userId"])
    assert await sql.fetchval("SELECT count(*) FROM reports") == 0


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
async def test_link_lifetime_out_of_range_is_rejected(
    api: Api, march_membership: None, seconds: int
) -> None:
    created = (await create_report(api, userId="7", year=2024, month=3))["report"]
    error = await api.error(
        """query Link($id: ID!, $seconds: Int!) {
             report(id: $id) { downloadUrl(expiresInSeconds: $seconds) }
           }""",
        id=created["id"],
        seconds=seconds,
    )
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert error["extensions"]["argument"] == "expiresInSeconds"
    assert error["extensions"]["allowed"] == "1 to 604800 seconds"


async def test_reports_are_listed_newest_first_and_by_user(
    api: Api, march_membership: None
) -> None:
    for user_id in ("7", None, "7", "7"):
        await create_report(api, userId=user_id, year=2024, month=3)
    query = """query List($first: Int, $after: String, $user: ID) {
      reports(first: $first, after: $after, userId: $user) {
        nodes { id userId } pageInfo { hasNextPage endCursor }
      }
    }"""
    page = (await api(query, first=3))["reports"]
    assert [node["id"] for node in page["nodes"]] == ["rep_4", "rep_3", "rep_2"]
    assert page["pageInfo"]["hasNextPage"] is True
    rest = (await api(query, first=3, after=page["pageInfo"]["endCursor"]))["reports"]
    assert [node["id"] for node in rest["nodes"]] == ["rep_1"]
    assert rest["pageInfo"]["hasNextPage"] is False
    of_one = (await api(query, user="7"))["reports"]
    assert [node["id"] for node in of_one["nodes"]] == ["rep_4", "rep_3", "rep_1"]


async def test_unknown_report_is_null_and_an_invalid_id_is_rejected(api: Api) -> None:
    assert await report(api, "rep_404") is None
    error = await api.error('{ report(id: "404") { id } }')
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert error["extensions"]["argument"] == "id"
