"""The application with the rows that the cases read and change."""

from typing import TYPE_CHECKING

import pytest

from tests.conftest import Api, Sql
from tests.idempotency.cases import store_rows

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client


@pytest.fixture
async def filled(api: Api, sql: Sql, s3: "S3Client") -> Api:
    """Return the application with the rows of the cases, and no worker."""
    await store_rows(sql, api)
    return api
