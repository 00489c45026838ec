"""Tests generate reports in this process, as a worker would, with the real store."""

from collections.abc import AsyncIterator

import pytest

from segmentql.adapters.database import Database
from segmentql.adapters.storage import Storage
from segmentql.csv_files.generation import FileContext
from segmentql.objects.actors import ObjectContext
from segmentql.settings import Settings
from tests.conftest import Api, Sql
from tests.operations import make_segments

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
