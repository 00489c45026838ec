"""Tests generate reports in this process, as a worker would, with the real store."""

from collections.abc import AsyncIterator

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.objects.actors import ObjectContext
from segmentql.reports.actors import make_report
from segmentql.settings import Settings
from tests.back_dating import insert_membership
from tests.conftest import Api, Sql
from tests.operations import make_segments, set_user_key
from tests.reports.erased_keys import KEYS, MARCH, Files
from tests.reports.queries import create_report

ROWS = 400_000
"""The number of rows of about 13 MB of CSV: two parts, so that the upload is a multipart one."""


@pytest.fixture
async def storage(settings: Settings) -> AsyncIterator[Storage]:
    """Open the store of the test run and create its bucket."""
    opened = Storage(settings)
    await opened.set_up()
    yield opened
    await opened.close()


@pytest.fixture
async def report_context(database: Database, storage: Storage) -> FileContext:
    return FileContext(database, storage, retention_days=30)


@pytest.fixture
async def object_context(database: Database, storage: Storage) -> ObjectContext:
    return ObjectContext(database, storage)


@pytest.fixture
async def many_joins(api: Api, sql: Sql) -> None:
    """Store `ROWS` joins in March 2024."""
    await make_segments(api, "a")
    await sql.execute("SELECT make_history_partitions('2024-03-01', 1)")
    await sql.execute(
        """
        INSERT INTO history
            (user_id, at, segment_id, operation, membership_id, cause, recorded_at)
        SELECT n, '2024-03-01Z'::timestamptz + n * interval '1 s', 1, 'JOINED', n, 'MANUAL', now()
        FROM generate_series(1, $1) AS n
        """,
        ROWS,
    )


@pytest.fixture
async def files(storage: Storage) -> Files:
    """Return a function that reads all objects that the test stored, by their keys."""
    client = await storage._s3.client()

    async def keys() -> set[str]:
        listed = await client.list_objects_v2(Bucket=storage._bucket)
        return {item["Key"] for item in listed.get("Contents", [])}

    earlier = await keys()

    async def read() -> dict[str, str]:
        contents = {}
        for key in await keys() - earlier:
            found = await client.get_object(Bucket=storage._bucket, Key=key)
            contents[key] = (await found["Body"].read()).decode()
        return contents

    return read


@pytest.fixture
async def requested(api: Api, sql: Sql, storage: Storage) -> None:
    """Request a report on three users with keys."""
    await make_segments(api, "a")
    for user_id, key in KEYS.items():
        await insert_membership(sql, user_id, "a", joined_at=MARCH)
        await set_user_key(api, user_id, key)
    assert (await create_report(api, year=2024, month=3, withKeys=True))["errors"] == []


@pytest.fixture
async def ready(requested: None, report_context: FileContext) -> None:
    await make_report(report_context, 1)
